// The page: what is open, what is filtered, and the keys.

const CHOICES = { state: 'filter-state', reason: 'filter-reason', medium: 'filter-media', answers: 'filter-answers', source: 'filter-source', tag: 'filter-tag', from: 'filter-from', to: 'filter-to', order: 'filter-order' };
const detail = element('detail');
const query = element('query');
let openRow = null;
let searches = 0;

const list = new RowList((place, opens) => { show(place); if (opens) open(); });

// ---- what is open ---------------------------------------------------------------------------------------------

const isOpen = () => document.body.classList.contains('opened');

/** Show the row at a place of the list, without leaving the list. */
function show(place) {
  if (list.found.length === 0) return;
  const within = Math.max(0, Math.min(place, list.found.length - 1));
  list.choose(within);
  openRow = list.found[within].number;
  drawRow();
  detail.scrollTop = 0;
  history.replaceState(null, '', `#row=${openRow + 1}`);
}

function drawRow() {
  const place = list.chosen;
  const position = place < 0 ? `row ${openRow + 1}` : `${figure(place + 1)} of ${figure(list.found.length)}`;
  element('row').replaceChildren(...rowView(openRow, position, drawRow));
  element('row').querySelector('.row-head').append(steps());
  element('overview').hidden = true;
  element('row').hidden = false;
  markFound();
}

function steps() {
  const back = made('button', 'tool back', '\u2190 Rows');
  back.addEventListener('click', close);
  const [previous, next] = [['\u2191', 'Previous row (k)', -1], ['\u2193', 'Next row (j)', 1]].map(([sign, label, by]) => {
    const button = made('button', 'tool round', sign);
    button.setAttribute('aria-label', label);
    button.title = label;
    button.addEventListener('click', () => show(list.chosen + by));
    return button;
  });
  return made('div', 'steps', null, back, previous, next);
}

/** Go into the row: on a narrow screen it takes the place of the list. */
function open() {
  document.body.classList.add('opened');
  detail.focus({ preventScroll: true });
}

function close() {
  document.body.classList.remove('opened');
  list.box.focus({ preventScroll: true });
}

function showOverview() {
  openRow = null;
  list.chosen = -1;
  list.draw();
  element('overview').hidden = false;
  element('row').hidden = true;
  detail.scrollTop = 0;
  history.replaceState(null, '', '#');
  open();
}

/** Mark the words that were searched for, where the browser can do so without touching the text. */
function markFound() {
  if (!('highlights' in CSS)) return;
  const terms = termsOf(query.value);
  const found = [];
  const walker = document.createTreeWalker(element('row'), NodeFilter.SHOW_TEXT);
  while (terms.length > 0 && walker.nextNode()) {
    const text = walker.currentNode.data.toLowerCase();
    // Small letters may take more room than large ones in a few scripts; places would then be wrong.
    if (text.length !== walker.currentNode.data.length) continue;
    for (const term of terms) {
      for (let at = text.indexOf(term); at >= 0; at = text.indexOf(term, at + term.length)) {
        const range = new Range();
        range.setStart(walker.currentNode, at);
        range.setEnd(walker.currentNode, at + term.length);
        found.push(range);
      }
    }
  }
  CSS.highlights.set('found', new Highlight(...found));
}

// ---- filters --------------------------------------------------------------------------------------------------

function choices() {
  const chosen = Object.fromEntries(Object.entries(CHOICES).map(([name, id]) => [name, element(id).value]));
  return { ...chosen, upwards: element('filter-upwards').checked, query: query.value };
}

async function refresh() {
  searches += 1;
  const mine = searches;
  const chosen = choices();
  const used = Object.keys(CHOICES).filter((name) => name !== 'order' && chosen[name] !== '').length;
  element('filter-count').hidden = used === 0;
  element('filter-count').textContent = String(used);
  const wait = setTimeout(() => { element('status').textContent = 'Searching\u2026'; }, 80);
  const found = await search(chosen, () => mine !== searches);
  clearTimeout(wait);
  if (found === null) return;
  list.set(found, openRow);
  const all = `${figure(rows.length)} ${rows.length === 1 ? 'row' : 'rows'}`;
  element('status').textContent = found.length === rows.length ? all : `${figure(found.length)} of ${all}`;
  document.body.dataset.shown = String(found.length);
  if (openRow !== null) markFound();
}

function fillFilters() {
  const offer = (id, counted) => counted.forEach(([name, count]) => element(id).append(new Option(`${name} (${figure(count)})`, name)));
  offer('filter-reason', facets.reasons);
  offer('filter-media', facets.kinds);
  offer('filter-source', facets.sources);
  offer('filter-tag', facets.tags);
  for (const id of ['filter-reason', 'filter-source', 'filter-tag']) element(id).parentElement.hidden = element(id).length < 2;
  for (const input of element('filters').querySelectorAll('select, input')) input.addEventListener('input', refresh);
}

function clearFilters() {
  for (const id of Object.values(CHOICES)) element(id).value = '';
  element('filter-upwards').checked = false;
  refresh();
}

function toggleFilters() {
  const hides = !element('filters').hidden;
  element('filters').hidden = hides;
  element('filter-button').setAttribute('aria-expanded', String(!hides));
  if (!hides) element('filter-state').focus();
}

function filterByReason(reason) {
  element('filter-reason').value = reason;
  if (element('filters').hidden) toggleFilters();
  refresh();
  close();
}

// ---- keys -----------------------------------------------------------------------------------------------------

function nextTheme() {
  const themes = [...document.getElementsByName('theme')];
  themes[(themes.findIndex((theme) => theme.checked) + 1) % themes.length].checked = true;
}

const KEYS = {
  j: () => show(list.chosen + 1),
  k: () => show(list.chosen - 1),
  g: () => show(0),
  G: () => show(list.found.length - 1),
  o: showOverview,
  '/': () => { query.focus(); query.select(); },
  f: toggleFilters,
  d: () => element('differences')?.click(),
  p: () => element('row').querySelector('.play')?.click(),
  t: nextTheme,
  '?': () => element('help').showModal(),
  Enter: () => { if (list.chosen < 0) show(0); open(); },
  Escape: () => { if (isOpen() || document.activeElement === detail) close(); },
};
const LIST_KEYS = { ArrowDown: KEYS.j, ArrowUp: KEYS.k, Home: KEYS.g, End: KEYS.G };

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || element('help').open) return;
  const { target, key } = event;
  if (target.matches('input, select')) {
    if (key === 'Escape' && target === query && query.value !== '') { query.value = ''; refresh(); }
    else if (key === 'Escape' || (key === 'Enter' && target === query)) list.box.focus();
    else return;
    event.preventDefault();
    return;
  }
  if (target.matches('button, summary') && (key === 'Enter' || key === ' ')) return;
  const action = (target === list.box ? LIST_KEYS[key] : undefined) ?? KEYS[key];
  if (action === undefined) return;
  event.preventDefault();
  action();
}

// ---- start ----------------------------------------------------------------------------------------------------

fillFilters();
document.addEventListener('keydown', press);
query.addEventListener('input', refresh);
element('filter-button').addEventListener('click', toggleFilters);
element('filter-clear').addEventListener('click', clearFilters);
element('overview-button').addEventListener('click', showOverview);
element('help-button').addEventListener('click', KEYS['?']);
element('help-close').addEventListener('click', () => element('help').close());
for (const button of document.querySelectorAll('[data-reason]')) button.addEventListener('click', () => filterByReason(button.dataset.reason));
// Rows and pictures behind the script are there from now on.
document.addEventListener('DOMContentLoaded', () => { list.clear(); list.draw(); if (openRow !== null) drawRow(); });

refresh().then(() => {
  const asked = Number(/^#row=(\d+)$/.exec(location.hash)?.[1] ?? 0);
  if (asked >= 1 && asked <= rows.length) { show(asked - 1); document.body.classList.add('opened'); }
});
document.body.dataset.ready = String(Math.round(performance.now()));
