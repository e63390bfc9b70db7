// One row in full: prompt, media, answers with what is known about them, facts.

let differencesShown = true;
let comparedWith = 0;

/** Answers with more spans show their weights by shade and line, and as figures under the mouse only. */
const MOST_FIGURES = 12;

const MOST_ENLARGED_PX = 160;

function medium(number) {
  const entry = media[number];
  const box = element('medium-shape').content.firstElementChild.cloneNode(true);
  const uri = entry.picture === undefined ? null : pictureOf(entry.picture);
  const what = `${entry.kind}${entry.facts ? `, ${entry.facts}` : ''}`;
  const caption = made('div', 'caption', null, made('span', '', `${entry.name} \u00b7 ${what}`));
  if (uri === null) {
    box.querySelector('.missing').textContent = missing(entry);
  } else {
    const image = made('img');
    image.alt = `${what}: ${entry.name}`;
    image.decoding = 'async';
    const reel = made('div', 'reel', null, image);
    image.addEventListener('load', () => {
      image.classList.toggle('tiny', Math.max(image.naturalWidth, image.naturalHeight) <= MOST_ENLARGED_PX);
      const isStrip = isLong(image);
      reel.classList.toggle('strip', isStrip);
      image.style.setProperty('--ratio', String(image.naturalWidth / image.naturalHeight));
      // What scrolls must be reached by the keyboard too.
      if (isStrip) reel.tabIndex = 0;
      else reel.removeAttribute('tabindex');
    });
    image.src = uri;
    box.replaceChildren(reel);
    if (entry.playable !== undefined) caption.prepend(playButton(image, entry, uri));
    if (entry.playable_left_out) caption.append(made('span', '', 'The moving pictures were left out: the budget of the page is spent.'));
    if (entry.too_long) caption.append(made('span', '', 'Too long to be played here.'));
  }
  box.append(caption);
  return box;
}

function missing(entry) {
  if (entry.trouble !== undefined) return `No picture: ${entry.trouble}.`;
  if (entry.picture !== undefined) return 'The page is still being read.';
  return 'The picture was left out, because the budget of this page for pictures is spent. See the overview for the way to get it.';
}

/** A button that exchanges still pictures and moving ones. */
function playButton(image, entry, still) {
  const button = made('button', 'tool play', '\u25b6 Play');
  button.setAttribute('aria-pressed', 'false');
  button.addEventListener('click', () => {
    const plays = button.getAttribute('aria-pressed') === 'true';
    const uri = plays ? still : pictureOf(entry.playable);
    if (uri === null) return;
    image.src = uri;
    image.classList.toggle('playing', !plays);
    button.setAttribute('aria-pressed', String(!plays));
    button.textContent = plays ? '\u25b6 Play' : '\u275a\u275a Pause';
  });
  return button;
}

function turn([role, parts]) {
  const said = made('div');
  for (const part of parts) {
    if (typeof part === 'string') said.append(paragraph(part));
    else if (said.lastElementChild?.matches('.media')) said.lastElementChild.append(medium(part));
    else said.append(made('div', 'media', null, medium(part)));
  }
  if (role === '') return made('div', 'turn lone', null, said);
  return made('div', `turn ${role}`, null, made('div', 'role', role), said);
}

function paragraph(text) {
  const one = made('p', '', text);
  one.dir = 'auto';
  return one;
}

// ---- answers --------------------------------------------------------------------------------------------------

/** The assistant's words, joined over turns: what spans count in. */
function wordsSaid(answer) {
  return answer.turns.filter(([role]) => role === 'assistant').flatMap(([, parts]) => parts).join('');
}

/** For each answer the ranges of words that the one it is compared with lacks, and which that is; of many, all are compared with one. */
function comparisons(answers) {
  const said = answers.map(wordsSaid);
  const standard = Math.min(comparedWith, answers.length - 1);
  return answers.map((_, k) => {
    if (k === standard && answers.length !== 2) return { marks: [], other: null };
    const other = k !== standard ? standard : 1 - k;
    const found = differencesShown ? differences(said[k], said[other]) : [[]];
    return { marks: found?.[0] ?? [], other, tooLong: found === null };
  });
}

/** An element around words whose tokens have a weight of their own. */
function weighted(weight) {
  const one = made('span', 'weighted');
  const strength = weight > 1 ? Math.min(1, Math.log2(weight) / 3 + 0.15) : Math.min(1, Math.abs(1 - weight));
  one.classList.add(weight < 0 ? 'against' : weight === 0 ? 'none' : weight < 1 ? 'down' : 'up');
  one.style.setProperty('--strength', String(strength));
  one.dataset.weight = `\u00d7${figure(weight)}`;
  one.title = `weight ${figure(weight)}`;
  return one;
}

/** Put words into `paragraph`: weights around differences, one element a span. */
function fill(paragraph, found, tag) {
  let [around, within] = [undefined, paragraph];
  for (const { text, differs, span } of found) {
    if (span !== around) {
      around = span;
      within = span === undefined || span[2] === 1 ? paragraph : weighted(span[2]);
      if (within !== paragraph) paragraph.append(within);
    }
    within.append(differs ? made(tag, '', text) : text);
  }
}

function answerCard(answer, k, answers, comparison, isTied) {
  const card = element('answer-shape').content.firstElementChild.cloneNode(true);
  const several = answers.length > 1;
  // Between the best and the worst nothing is said to be right or wrong.
  card.classList.toggle('good', answer.level === 0 && several);
  card.classList.toggle('bad', answer.level > 0 && answer.level === answers.at(-1).level);
  card.dataset.answer = String(k + 1);
  const rank = several ? ` \u00b7 rank ${answer.level + 1}${isTied ? ' (tied)' : ''}` : '';
  card.querySelector('.who').textContent = `answer ${k + 1}${rank}`;
  const first = card.querySelector('p');
  const spans = answer.spans ?? [];
  card.classList.toggle('dense', spans.length > MOST_FIGURES);
  const tag = comparison.other !== null && answers[comparison.other].level < answer.level ? 'del' : 'ins';
  const body = answerWords(answer, { marks: comparison.marks, spans, tag });
  first.replaceWith(...body);
  const note = card.querySelector('.note');
  const said = [];
  if (differencesShown && several) said.push(comparedAs(comparison));
  if (answer.model) said.push(`by ${answer.model}`);
  if (answer.annotator) said.push(`judged by ${answer.annotator}`);
  note.textContent = said.join(' \u00b7 ');
  const scores = scoreList(answer, answers);
  if (scores !== null) note.before(scores);
  if (answer.critique) note.before(critique(answer.critique));
  if (answer.drawn) body[0].before(drawnAnswer(answer.drawn));
  if (answer.media) note.before(made('span', 'note', 'It was written about other media:'), ...answer.media.map(medium));
  return card;
}

/** An answer that is more than text, as a picture; or why there is none. */
function drawnAnswer({ kind, facts, picture, trouble, left_out: leftOut }) {
  const said = facts ? `${kind}: ${facts}` : kind;
  if (picture === undefined) {
    const why = leftOut ? 'it was not drawn, because the budget of this page for pictures is spent.' : trouble;
    return made('p', 'note drawn', `${said}. ${why}`);
  }
  const box = medium(picture);
  box.classList.add('drawn');
  box.querySelector('.caption').textContent = said;
  return box;
}

function comparedAs({ other, tooLong }) {
  if (other === null) return 'the others are compared with this one';
  return tooLong ? 'too long to be compared word by word' : `underlined: not in answer ${other + 1}`;
}

/** The turns of an answer as paragraphs; turns that are not the assistant's are named. */
function answerWords(answer, how) {
  const all = wordsSaid(answer);
  let at = 0;
  return answer.turns.map(([role, parts]) => {
    const text = parts.join('');
    if (role !== 'assistant') {
      const other = paragraph(text);
      other.prepend(made('span', 'inner-role', role));
      return other;
    }
    const one = paragraph('');
    fill(one, pieces(all, at, at + text.length, how.marks, how.spans), how.tag);
    at += text.length;
    return one;
  });
}

function critique(text) {
  const one = made('blockquote', 'critique', null, made('b', '', 'critique'), text);
  one.dir = 'auto';
  return one;
}

/** Scores with a bar each, as long as the best of the row is large; without where one is negative or no other answer has it. */
function scoreList(answer, answers) {
  const own = [...(answer.score === undefined ? [] : [['score', answer.score]]), ...Object.entries(answer.scores ?? {})];
  if (own.length === 0) return null;
  const list = made('dl', 'scores');
  for (const [name, value] of own) {
    const others = answers.map((other) => (name === 'score' ? other.score : undefined) ?? other.scores?.[name]).filter((other) => other !== undefined);
    const top = Math.max(...others);
    const line = made('div', '', null, made('dt', '', name), made('dd', '', figure(value)));
    if (others.length > 1 && Math.min(...others) >= 0 && top > 0) {
      const bar = made('i');
      bar.style.width = `${(100 * value) / top}%`;
      line.append(made('span', 'track', null, bar));
    } else line.append(made('span'));
    list.append(line);
  }
  return list;
}

/** Answers below what is said of all of them. A change of how they are compared draws the answers alone, so that the control keeps the focus. */
function answersSection({ answers = [], ties = [] }, redrawn) {
  if (answers.length === 0) return [];
  const cards = made('div', 'answers');
  const draw = () => {
    const compared = comparisons(answers);
    const isTied = (k) => ties.some((group) => group.includes(k));
    cards.replaceChildren(...answers.map((answer, k) => answerCard(answer, k, answers, compared[k], isTied(k))));
  };
  const redraw = () => { draw(); redrawn(); };
  const head = made('div', 'answers-head', null, made('h2', '', answers.length === 1 ? 'Answer' : 'Answers, best first'));
  if (answers.length > 1) head.append(differenceSwitch(redraw));
  if (answers.length > 2) head.append(standardChoice(answers, redraw));
  draw();
  return [head, cards];
}

function differenceSwitch(redraw) {
  const tick = made('input');
  tick.type = 'checkbox';
  tick.id = 'differences';
  tick.checked = differencesShown;
  tick.addEventListener('change', () => { differencesShown = tick.checked; redraw(); });
  return made('label', '', null, tick, 'mark differences');
}

function standardChoice(answers, redraw) {
  const choice = made('select');
  choice.id = 'compared-with';
  answers.forEach((_, k) => choice.append(new Option(`answer ${k + 1}`, String(k), false, k === Math.min(comparedWith, answers.length - 1))));
  choice.addEventListener('change', () => { comparedWith = Number(choice.value); redraw(); });
  return made('label', '', null, 'compare with', choice);
}

// ---- the row --------------------------------------------------------------------------------------------------

function refusalNotice({ reason, field, value, hint }) {
  const facts = made('dl');
  for (const [name, said] of [['field', field], ['value', value], ['way out', hint]]) if (said) facts.append(made('dt', '', name), made('dd', '', said));
  return made('div', 'finding bad', null, made('p', '', null, made('b', '', 'Refused: '), reason), ...(facts.childElementCount ? [facts] : []));
}

/** What is known about the row as a whole, beside its name: figures and tags. */
function labels(row) {
  const figures = ['margin', 'weight', 'difficulty'].filter((name) => row[name] !== undefined).map((name) => [name, figure(row[name])]);
  const judged = row.label === undefined ? [] : [['judged', row.label ? 'good' : 'bad']];
  const all = [...judged, ...figures, ...Object.entries(row.tags ?? {})];
  return made('div', 'labels', null, ...all.map(([name, value]) => made('span', 'tag', null, made('b', '', name), ` ${value}`)));
}

/** Where the row comes from, as pairs of a name and a text. */
function origin({ id, file, row, source, provenance = {} }) {
  const place = row > 0 ? `${file}, row ${row}` : file;
  return [['id', id], ['format', source], ['from', place], ...Object.entries(provenance)].filter(([, said]) => said);
}

function table(pairs) {
  const one = made('dl', 'facts-table card');
  for (const [said, value] of pairs) one.append(made('div', '', null, made('dt', '', said), made('dd', '', value)));
  return one;
}

/** The content of the detail pane for a row; `redrawn` is told when parts of it were drawn anew. */
function rowView(number, position, redrawn) {
  const row = record(number);
  const name = made('h1', '', row.id || 'a row without a name');
  const head = made('header', 'row-head', null, made('div', '', null, made('div', 'eyebrow', position), name, labels(row)));
  const turns = row.turns ?? [];
  const prompt = turns.length === 0 ? [] : [made('h2', '', row.answers ? 'Prompt' : 'Medium'), made('div', 'prompt', null, ...turns.map(turn))];
  const raw = row.raw === undefined ? [] : [made('h2', '', 'What stands in the row'), table(Object.entries(row.raw))];
  return [head, ...(row.refused ?? []).map(refusalNotice), ...raw, ...prompt, ...answersSection(row, redrawn), made('h2', '', 'Where it comes from'), table(origin(row))];
}
