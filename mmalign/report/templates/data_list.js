// The list of rows: as many elements as fit on the screen, whatever the number of rows.

const ITEM_PX = 86;
const SPARE_ITEMS = 6;

/** An element with a class, a text and children; texts never become HTML. */
function made(tag, className = '', text = null, ...children) {
  const one = document.createElement(tag);
  if (className !== '') one.className = className;
  if (text !== null) one.textContent = text;
  one.append(...children);
  return one;
}

function figure(value) {
  if (Math.abs(value) >= 1e15) return Number(value.toPrecision(4)).toExponential();
  return Number.isInteger(value) ? value.toLocaleString('en') : String(Number(value.toPrecision(4)));
}

/** The number of a row in its file, as `--from-row` and the address take it. */
function ownNumber({ row }) {
  return row > 0 ? `#${row}` : '';
}

class RowList {
  constructor(onChoose) {
    this.box = element('list');
    this.space = element('list-space');
    this.found = [];
    this.chosen = -1;
    this.shown = new Map();
    this.box.addEventListener('scroll', () => this.draw(), { passive: true });
    this.space.addEventListener('click', (event) => {
      const item = event.target.closest('.item');
      if (item !== null) onChoose(Number(item.dataset.place), true);
    });
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  /** Show other rows; the chosen one stays chosen while it is among them. */
  set(found, openRow) {
    this.found = found;
    this.chosen = openRow === null ? -1 : found.findIndex((row) => row.number === openRow);
    this.clear();
    this.space.style.height = `${found.length * ITEM_PX}px`;
    if (found.length === 0) this.space.replaceChildren(made('p', 'none', 'No row is like this.'));
    this.box.scrollTop = Math.max(0, this.chosen) * ITEM_PX;
    this.draw();
  }

  clear() {
    this.shown.clear();
    this.space.replaceChildren();
  }

  choose(place) {
    this.chosen = place;
    const [top, height] = [place * ITEM_PX, this.box.clientHeight];
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ITEM_PX > this.box.scrollTop + height) this.box.scrollTop = top + ITEM_PX - height;
    this.draw();
  }

  /** How many rows a screen of the list holds, one less, so that the last one seen stays in sight. */
  pageful() {
    return Math.max(1, Math.floor(this.box.clientHeight / ITEM_PX) - 1);
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ITEM_PX) - SPARE_ITEMS);
    const last = Math.min(this.found.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ITEM_PX) + SPARE_ITEMS);
    for (const [place, item] of this.shown) if (place < first || place >= last) { item.remove(); this.shown.delete(place); }
    for (let place = first; place < last; place += 1) {
      if (!this.shown.has(place)) {
        const item = this.item(place);
        this.shown.set(place, item);
        this.space.append(item);
      }
      this.shown.get(place).setAttribute('aria-selected', String(place === this.chosen));
    }
    if (this.shown.has(this.chosen)) this.box.setAttribute('aria-activedescendant', `item-${this.chosen}`);
    else this.box.removeAttribute('aria-activedescendant');
  }

  item(place) {
    const row = this.found[place];
    const title = made('div', row.title === '' ? 'title empty' : 'title', row.title || row.id);
    const facts = made('div', 'facts');
    if (row.refused.length > 0) facts.append(made('span', 'refused', `\u2715 ${row.refused[0]}`), ' \u00b7 ');
    const answers = row.answers === 0 ? [] : [row.answers === 1 ? '1 answer' : `${row.answers} answers`];
    if (row.judged !== '') answers[0] += `, judged ${row.judged}`;
    facts.append([ownNumber(row), ...answers, ...row.kinds, row.source].filter((fact) => fact !== '').join(' \u00b7 '));
    const item = made('div', 'item', null, title, facts);
    if (row.thumb >= 0) item.append(thumbnail(row.thumb));
    item.id = `item-${place}`;
    item.dataset.place = String(place);
    item.dataset.id = row.id;
    item.style.top = `${place * ITEM_PX}px`;
    item.setAttribute('role', 'option');
    item.setAttribute('aria-posinset', String(place + 1));
    item.setAttribute('aria-setsize', String(this.found.length));
    return item;
  }
}

/** The picture of a medium, small and for the eye alone: its row says the rest. */
function thumbnail(number) {
  const { kind, picture } = media[number];
  const uri = picture === undefined ? null : pictureOf(picture);
  if (uri === null) return made('div', 'thumb', kind);
  const image = made('img', 'thumb');
  image.alt = '';
  image.decoding = 'async';
  image.addEventListener('load', () => image.classList.toggle('strip', isLong(image)));
  image.src = uri;
  return image;
}

/** Tell whether a picture is a strip of frames rather than one view. */
function isLong(image) {
  return image.naturalWidth > 3 * image.naturalHeight;
}
