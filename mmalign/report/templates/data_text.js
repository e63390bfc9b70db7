// Words, the differences between two texts, and a text cut into pieces by marks and weights.

// One character of scripts written without spaces is a word, so is a mark of punctuation.
const WORD = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{N}\p{M}_]+(?:['\u2019.,\-][\p{L}\p{N}\p{M}_]+)*|[^\s]/gu;
const MOST_COMPARISONS = 6e6;

function wordsOf(text) {
  return Array.from(text.matchAll(WORD), (found) => ({ word: found[0], start: found.index, end: found.index + found[0].length }));
}

/** Ranges [start, end) of `a` and of `b` whose words are not in the longest common sequence of words; null when the texts are too long. */
function differences(a, b) {
  const [left, right] = [wordsOf(a), wordsOf(b)];
  let head = 0;
  while (head < left.length && head < right.length && left[head].word === right[head].word) head += 1;
  let tail = 0;
  while (tail < Math.min(left.length, right.length) - head && left.at(-1 - tail).word === right.at(-1 - tail).word) tail += 1;
  const [x, y] = [left.slice(head, left.length - tail), right.slice(head, right.length - tail)];
  if (x.length * y.length > MOST_COMPARISONS) return null;
  const [onlyLeft, onlyRight] = onlyInOne(x, y);
  return [ranges(a, left, onlyLeft, head), ranges(b, right, onlyRight, head)];
}

/** Places in x and in y that a longest common sequence leaves out. */
function onlyInOne(x, y) {
  const width = y.length + 1;
  const common = new Uint32Array((x.length + 1) * width);
  for (let i = x.length - 1; i >= 0; i -= 1) {
    for (let j = y.length - 1; j >= 0; j -= 1) {
      const at = i * width + j;
      common[at] = x[i].word === y[j].word ? common[at + width + 1] + 1 : Math.max(common[at + width], common[at + 1]);
    }
  }
  const [onlyX, onlyY] = [[], []];
  let [i, j] = [0, 0];
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i].word === y[j].word) { i += 1; j += 1; }
    else if (j >= y.length || (i < x.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) onlyX.push(i++);
    else onlyY.push(j++);
  }
  return [onlyX, onlyY];
}

/** Ranges of characters of the words at `places` (counted from `offset`), neighbours joined over the space between. */
function ranges(text, words, places, offset) {
  const joined = [];
  let last = -2;
  for (const place of places) {
    const { start, end } = words[place + offset];
    if (place === last + 1) joined.at(-1)[1] = end;
    else joined.push([start, end]);
    last = place;
  }
  return joined;
}

/** `text` from `from` to `to` in pieces: each with whether a mark covers it, and the last span that does. */
function pieces(text, from, to, marks, spans) {
  const cuts = new Set([from, to]);
  for (const [start, end] of [...marks, ...spans]) for (const cut of [start, end]) if (cut > from && cut < to) cuts.add(cut);
  const places = [...cuts].sort((one, other) => one - other);
  return places.slice(1).map((end, k) => {
    const start = places[k];
    const covers = ([first, last]) => first <= start && end <= last;
    return { text: text.slice(start, end), differs: marks.some(covers), span: spans.findLast(covers) };
  });
}

/** The terms of a query: words, and "several words" in quotes, in small letters. */
function termsOf(query) {
  return Array.from(query.toLowerCase().matchAll(/"([^"]+)"?|(\S+)/g), (found) => found[1] ?? found[2]).filter((term) => term !== '"');
}
