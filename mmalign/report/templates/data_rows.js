// The rows: an index that is read at once, chunks that are parsed when one of their rows is asked for, filters, search.

const element = (id) => document.getElementById(id);
const indexIsland = element('index');
const ROWS_A_CHUNK = Number(indexIsland.dataset.rowsAChunk);
const { columns, rows: lines, facets, media } = JSON.parse(indexIsland.textContent);

/** What the list, the filters and the orders know of each row; see row_record.summary. */
const rows = lines.map((line, number) => ({ number, ...Object.fromEntries(columns.map((name, k) => [name, line[k]])) }));
const chunks = new Map();
const haystacks = new Map();

/** The whole record of a row. */
function record(number) {
  const chunk = Math.floor(number / ROWS_A_CHUNK);
  if (!chunks.has(chunk)) chunks.set(chunk, JSON.parse(element(`chunk-${chunk}`).textContent));
  return chunks.get(chunk)[number % ROWS_A_CHUNK];
}

/** The data URI of a picture, or null while the browser has not read the page so far. */
function pictureOf(number) {
  const island = element(`picture-${number}`);
  return island === null ? null : JSON.parse(island.textContent);
}

function* texts(value) {
  if (typeof value === 'string') yield value;
  else if (value !== null && typeof value === 'object') for (const inner of Object.values(value)) yield* texts(inner);
}

/** Everything that a row says, in small letters; the names of roles are no words of the row. */
function haystack(number) {
  if (!haystacks.has(number)) {
    const { id, file, turns = [], answers = [], tags = {}, provenance = {}, refused = [], raw = {} } = record(number);
    const parts = (said) => said.map(([, inner]) => inner);
    const judged = answers.map((answer) => [parts(answer.turns), answer.critique, answer.model, answer.annotator]);
    const said = [id, file, parts(turns), judged, Object.entries(tags), Object.entries(provenance), refused, Object.entries(raw)];
    haystacks.set(number, [...texts(said)].join('\n').toLowerCase());
  }
  return haystacks.get(number);
}

/** Tell whether a row passes the filters, by its line of the index alone. */
function passes(row, { state, reason, medium, answers, source, tag, from, to }) {
  return (
    (state === '' || (state === 'refused') === row.refused.length > 0) &&
    (reason === '' || row.refused.includes(reason)) &&
    (medium === '' || (medium === 'none' ? row.kinds.length === 0 : medium === 'left-out' ? row.left_out : row.kinds.includes(medium))) &&
    (answers === '' || (answers === '3' ? row.answers >= 3 : row.answers === Number(answers))) &&
    (source === '' || row.source === source) &&
    (tag === '' || row.tags.includes(tag)) &&
    (from === '' || row.length >= Number(from)) &&
    (to === '' || row.length <= Number(to))
  );
}

/** Rows in an order; those without a value stand last, whichever way it goes. */
function ordered(found, { order, upwards }) {
  if (order === '') return found;
  const known = found.filter((row) => row[order] !== null);
  known.sort((one, other) => (upwards ? one[order] - other[order] : other[order] - one[order]) || one.number - other.number);
  return [...known, ...found.filter((row) => row[order] === null)];
}

const SLICE_MS = 12;
const pause = () => new Promise((resolve) => { setTimeout(resolve); });

/** The rows that pass the filters and hold every term, or null when `outdated` says that nobody waits for them. */
async function search(choices, outdated) {
  const terms = termsOf(choices.query);
  const candidates = rows.filter((row) => passes(row, choices));
  if (terms.length === 0) return ordered(candidates, choices);
  const found = [];
  let began = performance.now();
  for (const row of candidates) {
    if (performance.now() - began > SLICE_MS) {
      await pause();
      if (outdated()) return null;
      began = performance.now();
    }
    const text = haystack(row.number);
    if (terms.every((term) => text.includes(term))) found.push(row);
  }
  return ordered(found, choices);
}
