// The page: what is open, what is filtered, and the keys.

const CHOICES = { state: 'filter-state', reason: 'filter-reason', medium: 'filter-media', answers: 'filter-answers', source: 'filter-source', tag: 'filter-tag', from: 'filter-from', to: 'filter-to', order: 'filter-order' };
const detail = element('detail');
const query = element('query');
let openRow = null;
let searches = 0;

const list = new RowList((place, opens) => { show(place); if (opens) open(); });

// ---- what is open ---------------------------------------------------------------------------------------------

/** Show the row at a place of the list, without leaving the list. */
function show(place) {
  if (list.found.length === 0) return;
  const within = Math.max(0, Math.min(place, list.found.length - 1));
  list.choose(within);
  showRow(list.found[within].number);
}

function showRow(number) {
  openRow = number;
  drawRow();
  detail.scrollTop = 0;
  const { row } = rows[number];
  history.replaceState(null, '', row > 0 ? `#row=${row}` : '#');
}

function drawRow() {
  const place = list.chosen;
  const position = place < 0 ? 'not in the list' : `${figure(place + 1)} of ${figure(list.found.length)}`;
  const said = [ownNumber(rows[openRow]), position].filter((part) => part !== '').join(' \u00b7 ');
  element('row-content').replaceChildren(...rowView(openRow, said, markFound));
  element('overview').hidden = true;
  element('row').hidden = false;
  markFound();
}

/** Open the row that the address names, whether or not the filters let it pass; tell whether there is one. */
function follow() {
  const asked = Number(/^#row=(\d+)$/.exec(location.hash)?.[1] ?? 0);
  const named = asked > 0 ? rows.find(({ row }) => row === asked) : undefined;
  if (named === undefined) return false;
  const place = list.found.findIndex(({ number }) => number === named.number);
  list.choose(place);
  showRow(named.number);
  document.body.classList.add('opened');
  return true;
}

/** Go into the row: on a narrow screen it takes the place of the list. */
function open() {
  document.body.classList.add('opened');
  detail.focus({ preventScroll: true });
}

/** Let the list be seen again where the row, or the overview, had taken its place. */
function uncover() {
  document.body.classList.remove('opened');
}

function close() {
  uncover();
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

/** Find rows anew for a person, who wants to see them. */
function changed() {
  uncover();
  refresh();
}

function fillFilters() {
  const offer = (id, counted) => counted.forEach(([name, count]) => element(id).append(new Option(`${name} (${figure(count)})`, name)));
  offer('filter-reason', facets.reasons);
  offer('filter-media', facets.kinds);
  offer('filter-source', facets.sources);
  offer('filter-tag', facets.tags);
  for (const id of ['filter-reason', 'filter-source', 'filter-tag']) element(id).parentElement.hidden = element(id).length < 2;
  for (const input of element('filters').querySelectorAll('select, input')) input.addEventListener('input', changed);
}

function clearFilters() {
  for (const id of Object.values(CHOICES)) element(id).value = '';
  element('filter-upwards').checked = false;
  changed();
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
  Escape: close,
};
const LIST_KEYS = {
  ArrowDown: KEYS.j,
  ArrowUp: KEYS.k,
  PageDown: () => show(list.chosen + list.pageful()),
  PageUp: () => show(list.chosen - list.pageful()),
  Home: KEYS.g,
  End: KEYS.G,
};
/** What takes letters for itself; a radio button or a tick does not. */
const TYPED_INTO = 'input:not([type=radio], [type=checkbox]), select';

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || element('help').open) return;
  const { target, key } = event;
  if (target.matches(TYPED_INTO)) {
    if (key === 'Escape' && target === query && query.value !== '') { query.value = ''; changed(); }
    else if (key === 'Escape' || (key === 'Enter' && target === query)) close();
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
query.addEventListener('input', changed);
window.addEventListener('hashchange', () => { if (!follow()) showOverview(); });
element('filter-button').addEventListener('click', toggleFilters);
element('filter-clear').addEventListener('click', clearFilters);
for (const button of document.querySelectorAll('.back')) button.addEventListener('click', close);
element('previous').addEventListener('click', KEYS.k);
element('next').addEventListener('click', KEYS.j);
element('overview-button').addEventListener('click', showOverview);
element('help-button').addEventListener('click', KEYS['?']);
element('help-close').addEventListener('click', () => element('help').close());
for (const button of document.querySelectorAll('[data-reason]')) button.addEventListener('click', () => filterByReason(button.dataset.reason));
// Rows and pictures behind the script are there from now on.
document.addEventListener('DOMContentLoaded', () => { list.clear(); list.draw(); if (openRow !== null) drawRow(); });

refresh().then(follow);
document.body.dataset.ready = String(Math.round(performance.now()));
