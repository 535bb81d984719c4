// What comes next and why: one page of the queue as cards.

import { act, clientName, tried } from './actions.js';
import * as api from './api.js';
import { skipped } from './dialogs.js';
import { el, keyed, part, setAttribute, setShown, setText } from './dom.js';
import { count, counted, figure, readable, roughly, sentence, share, UNKNOWN } from './format.js';
import { Pager } from './pager.js';
import { picture, show as showPicture } from './pictures.js';

const PAGE = window.matchMedia('(max-width: 48rem)').matches ? 6 : 12;
const TYPING_MS = 300;
const MOST_BARS = 4;
const NUMBERS = / \([^)]*\)/g; // in a reason: the terms, which the bars show
const SORTS = { next: 'Order of serving', score: 'Score', image: 'Name', group: 'Patient' };
const BADGES = { pinned: 'accent', coverage: 'plain', 'random control': 'warn', 'possible miss': 'warn', 'poor image': 'plain', skipped: 'plain' };

export class Queue {
  constructor(root, page) {
    [this.root, this.page, this.descending] = [root, page, false];
    this.pager = new Pager(this.part('pager'), PAGE, () => this.again());
    this.part('tools').addEventListener('submit', event => event.preventDefault());
    this.part('search').addEventListener('input', () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.fromStart(), TYPING_MS);
    });
    ['sort', 'state'].forEach(name => this.part(name).addEventListener('change', () => this.fromStart()));
    this.part('order').addEventListener('click', () => {
      this.descending = !this.descending;
      this.fromStart();
    });
    for (const layer of ['contour', 'band']) {
      this.part(layer).addEventListener('change', () => this.showLayers());
    }
    this.showLayers();
  }

  part(name) {
    return part(this.root, name);
  }

  // Layers are switched for all cards at once by the style sheet.
  showLayers() {
    for (const layer of ['contour', 'band']) {
      this.part('cards').classList.toggle(`without-${layer}`, !this.part(layer).checked);
    }
  }

  fromStart() {
    this.pager.offset = 0;
    return this.again();
  }

  again() {
    return tried(this.part('said'), () => this.load());
  }

  async load() {
    const asked = (this.asked = Symbol('asked'));
    const query = {
      offset: this.pager.offset,
      limit: PAGE,
      search: this.part('search').value.trim(),
      sort: this.part('sort').value,
      state: this.part('state').value,
      descending: this.descending,
    };
    const found = await api.queue(query);
    if (asked === this.asked) {
      this.show(found);
    }
  }

  show(found) {
    if (!this.pager.show(found.count, found.entries.length)) {
      return;
    }
    this.entries = found.entries;
    this.showTools(found);
    setText(this.part('lead'), leadOf(found));
    setText(this.part('nothing'), nothingOf(found, this.part('search').value.trim(), this.part('state').value));
    setShown(this.part('nothing'), !found.entries.length);
    setShown(this.part('key'), found.entries.some(entry => entry.bars.length));
    keyed(this.part('cards'), found.entries, entry => entry.image, entry => this.card(entry), (node, entry) => this.fill(node, entry));
  }

  showTools({ sorts, sort, descending }) {
    const select = this.part('sort');
    if (this.sorts !== sorts.join()) {
      this.sorts = sorts.join();
      select.replaceChildren(...sorts.map(name => el('option', { value: name }, SORTS[name] || readable(name))));
      select.value = sort;
    }
    this.descending = descending;
    setAttribute(this.part('order'), 'aria-pressed', String(descending));
  }

  card({ image }) {
    const said = el('p', { class: 'said', role: 'alert' });
    const button = (name, words, action) =>
      el('button', { class: 'button small', 'data-part': name, type: 'button', onclick: e => action(e.currentTarget, said) }, words);
    return el('li', { class: 'study' },
      el('div', { class: 'frame' }, picture('picture', ['image', 'contour', 'band']), el('span', { class: 'place', 'data-part': 'place' })),
      el('div', { class: 'body' },
        el('h3', {}, image),
        el('ul', { class: 'badges', 'data-part': 'badges' }),
        el('p', { class: 'reason', 'data-part': 'reason' }),
        el('dl', { class: 'terms', 'data-part': 'terms' }),
        el('p', { class: 'holder', 'data-part': 'holder' }),
        el('div', { class: 'foot' }, said,
          el('div', { class: 'actions' },
            el('a', { class: 'button small primary', 'data-part': 'open', onclick: () => this.remember(image) }, 'Open', el('span', { class: 'unseen' }, ` ${image} in OHIF`)),
            button('pin', 'Pin', (b, s) => this.pin(b, s, image)),
            button('skip', 'Pass by', (b, s) => this.skip(b, s, image))))));
  }

  // OHIF says there why this image was chosen.
  remember(image) {
    const entry = this.entries.find(one => one.image === image);
    try {
      sessionStorage.setItem('loco-reason', JSON.stringify({ image, reason: entry?.reason || '' }));
    } catch {
      // a browser that stores nothing opens the image all the same
    }
  }

  fill(node, entry) {
    showPicture(node.querySelector('.picture'), entry.image, entry.mark);
    setText(part(node, 'place'), count(entry.place));
    setAttribute(part(node, 'place'), 'title', entry.forecast ? 'Would be served at this place' : 'Placed by its score');
    setText(part(node, 'reason'), sentence(entry.reason.replace(NUMBERS, '')));
    keyed(part(node, 'badges'), badgesOf(entry), ([words]) => words, () => el('li', { class: 'badge' }), (badge, [words, kind]) => {
      setText(badge, words);
      setAttribute(badge, 'data-kind', kind);
    });
    keyed(part(node, 'terms'), barsOf(entry), bar => bar.name, makeBar, fillBar);
    setText(part(node, 'holder'), holderOf(entry, this.page.now()));
    const open = part(node, 'open');
    setShown(open, entry.viewer);
    setAttribute(open, 'href', entry.viewer);
    const pin = part(node, 'pin');
    setAttribute(pin, 'aria-pressed', String(Boolean(entry.pin)));
    setText(pin, entry.pin ? 'Pinned' : 'Pin');
    setAttribute(pin, 'aria-label', entry.pin ? `Unpin ${entry.image}` : `Pin ${entry.image} to the front`);
    setAttribute(part(node, 'skip'), 'aria-label', `Pass ${entry.image} by`);
    const { write } = this.page.summary.rights;
    setShown(pin, write);
    setShown(part(node, 'skip'), write);
  }

  pin(button, said, image) {
    const pinned = button.getAttribute('aria-pressed') === 'true';
    return act(button, said, async () => {
      await (pinned ? api.unpin(image, clientName()) : api.pin(image, clientName()));
      setAttribute(button, 'aria-pressed', String(!pinned)); // the next press turns it round, however late the queue comes
      await this.page.look();
      return pinned ? `${image} is no longer pinned.` : `${image} is pinned: it is served before all others.`;
    });
  }

  skip(button, said, image) {
    const { login } = this.page.summary.rights;
    const action = async (reason, client) => {
      await api.skip(image, client, reason);
      await this.page.look();
      return `${image} was passed by: ${reason}.`;
    };
    return act(button, said, () => skipped({ image, login, action }));
  }
}

function leadOf({ total, version }) {
  const basis = version
    ? `ranked by what version ${count(version)} finds hardest to tell from its surroundings`
    : 'in an order that covers all kinds of images, until a model is good enough to rank them';
  return total ? `${counted(total, 'study', 'studies')} to label, ${basis}.` : '';
}

function nothingOf({ entries, total }, search, state) {
  if (entries.length) {
    return '';
  }
  if (total && (search || state !== 'waiting')) {
    return 'No study in the queue is like that. Clear the search and show all to see the others.';
  }
  return 'Nothing is left to label. Add studies to the folder or the PACS; they appear here by themselves.';
}

function badgesOf({ kind, stratum, control, pin, skips }) {
  const badges = [];
  if (pin) {
    badges.push(['pinned', 'accent']);
  }
  if (control) {
    badges.push(['control', 'warn']);
  }
  if (kind && !['pinned', 'random control'].includes(kind)) {
    badges.push([kind, BADGES[kind] || 'plain']);
  }
  if (stratum.includes('/')) {
    badges.push([stratum.replace('/', ', '), 'plain']);
  }
  if (skips) {
    badges.push([`passed by ${count(skips)} ×`, 'plain']);
  }
  return badges;
}

// Those that rank it; of an image that no model has ranked, what is known.
function barsOf({ bars }) {
  const ranked = bars.filter(bar => bar.ranked);
  return (ranked.length ? ranked : bars).slice(0, MOST_BARS);
}

const makeBar = () =>
  el('div', { class: 'term' }, el('dt'), el('dd', {},
    el('span', { class: 'meter', 'aria-hidden': 'true' }, el('span')), el('span', { class: 'number' })));

function fillBar(node, bar) {
  const known = Number.isFinite(bar.share);
  setText(node.querySelector('dt'), readable(bar.label));
  node.querySelector('.meter span').style.width = known ? `${100 * bar.share}%` : '0';
  setText(node.querySelector('.number'), known ? share(bar.share) : UNKNOWN);
  const more = known ? `: higher than in ${share(bar.share)} of the other images` : '';
  setAttribute(node, 'title', `${readable(bar.label)} ${figure(bar.value)}${more}`);
}

function holderOf({ lease }, now) {
  return lease ? `Held by ${lease.client || 'somebody without a name'} for ${roughly(lease.until - now)}` : '';
}

