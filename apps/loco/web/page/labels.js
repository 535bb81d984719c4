// What came back: each submission against what the model had proposed, and the validation cases where the model is worst.

import { say, tried } from './actions.js';
import * as api from './api.js';
import { el, keyed, part, setAttribute, setShown, setText } from './dom.js';
import { count, counted, figure, moment, share } from './format.js';
import { Pager } from './pager.js';
import { picture, show as showPicture } from './pictures.js';

const PAGE = 10;
const WORST = 6;

let opened; // which history the dialog was opened for last

export class Labels {
  constructor(root, page) {
    [this.root, this.page] = [root, page];
    this.pager = new Pager(this.part('pager'), PAGE, () => tried(this.part('said'), () => this.load()));
    const dialog = document.getElementById('versions-dialog');
    part(dialog, 'cancel').addEventListener('click', () => dialog.close());
  }

  part(name) {
    return part(this.root, name);
  }

  async load() {
    const asked = (this.asked = Symbol('asked'));
    const [found, worst] = await Promise.all([api.submissions({ offset: this.pager.offset, limit: PAGE }), api.worst({ limit: WORST })]);
    if (asked !== this.asked) {
      return; // the page was turned since, and its own answer is on the way
    }
    this.showWorst(worst);
    if (this.pager.show(found.count, found.entries.length)) {
      setShown(this.part('nothing'), !found.entries.length);
      setShown(this.part('list'), found.entries.length);
      keyed(this.part('rows'), found.entries, entry => entry.id, entry => this.row(entry), (node, entry) => this.fill(node, entry));
    }
  }

  row({ image }) {
    return el('tr', {},
      el('th', { scope: 'row' }, el('span', { class: 'who' }, picture('thumb', ['image', 'label']),
        el('span', {}, image, el('span', { class: 'hint', 'data-part': 'notes' })))),
      el('td', { 'data-name': 'Annotator', 'data-part': 'client' }),
      el('td', { 'data-name': 'When', 'data-part': 'when' }),
      el('td', { 'data-name': 'Agreement' }, el('span', { class: 'agreement', 'data-part': 'agreement' },
        el('span', { 'data-part': 'dice' }), el('span', { class: 'meter', 'aria-hidden': 'true' }, el('span')), el('span', { class: 'hint', 'data-part': 'source' }))),
      el('td', { 'data-name': 'Changed', 'data-part': 'changed' }),
      el('td', {}, el('span', { class: 'actions' },
        el('a', { class: 'button small', 'data-part': 'open' }, 'Open again', el('span', { class: 'unseen' }, ` ${image} in OHIF`)),
        el('button', { class: 'button small', type: 'button', 'data-part': 'history', onclick: () => openHistory(image) }))));
  }

  fill(node, entry) {
    showPicture(node.querySelector('.thumb'), entry.image, entry.mark);
    setText(part(node, 'notes'), notesOf(entry));
    setText(part(node, 'client'), entry.client || 'without a name');
    setText(part(node, 'when'), moment(entry.ts));
    fillAgreement(node, entry);
    setAttribute(part(node, 'open'), 'href', entry.viewer);
    setShown(part(node, 'open'), entry.viewer);
    setText(part(node, 'history'), counted(entry.versions, 'version'));
    setAttribute(part(node, 'history'), 'aria-label', `${counted(entry.versions, 'version')} of the label of ${entry.image}`);
  }

  showWorst({ version, cases, entries }) {
    setText(this.part('worst-lead'), entries.length
      ? `Of the ${counted(cases, 'validation case')} those with the lowest Dice of version ${count(version)}, worst first. Dashed is the label, whole lines are the model's.`
      : 'Known as soon as a model was measured on validation cases: a fifth of the labelled patients is set aside for that.');
    const make = ({ image }) =>
      el('li', { class: 'study' }, picture('picture', ['image', 'contour', 'label']),
        el('div', { class: 'body' }, el('h4', {}, image), el('p', { class: 'hint', 'data-part': 'dice' }),
          el('div', { class: 'actions' }, el('a', { class: 'button small', 'data-part': 'open' }, 'Open again', el('span', { class: 'unseen' }, ` ${image} in OHIF`)))));
    keyed(this.part('worst'), entries, entry => entry.image, make, (node, entry) => {
      showPicture(node.querySelector('.picture'), entry.image, entry.mark);
      setText(part(node, 'dice'), diceOf(entry));
      setAttribute(part(node, 'open'), 'href', entry.viewer);
      setShown(part(node, 'open'), entry.viewer);
    });
  }
}

function diceOf({ mean, dice }) {
  const several = Object.entries(dice);
  const each = several.length > 1 ? ` (${several.map(([name, value]) => `${name} ${figure(value)}`).join(', ')})` : '';
  return `Dice ${figure(mean)}${each}`;
}

function notesOf({ current, removed, validation, classes }) {
  const what = classes.length ? classes.join(', ') : 'nothing outlined';
  const state = removed ? 'removed' : current ? '' : 'replaced later';
  return [what, validation ? 'validation' : '', state].filter(Boolean).join(' · ');
}

function fillAgreement(node, { comparison, compared, sentence }) {
  const known = comparison !== null;
  const waiting = compared === 'pending' ? 'being computed' : sentence || 'nothing to compare with';
  setText(part(node, 'dice'), known ? diceOf(comparison) : '');
  setShown(node.querySelector('.agreement .meter'), known);
  node.querySelector('.agreement .meter span').style.width = known ? `${100 * comparison.mean}%` : '0';
  setText(part(node, 'source'), known ? comparison.source : waiting);
  setText(part(node, 'changed'), known
    ? `${count(comparison.changed)} px (${share(comparison.pixels ? comparison.changed / comparison.pixels : null)})`
    : '–');
}

// Every version of one label, to be taken away.
async function openHistory(image) {
  const dialog = document.getElementById('versions-dialog');
  const [list, said] = [part(dialog, 'versions'), part(dialog, 'said')];
  const asked = (opened = Symbol('asked'));
  setText(part(dialog, 'image'), image);
  list.replaceChildren();
  say(said, '');
  dialog.showModal();
  await tried(said, async () => {
    const versions = await api.versionsOf(image);
    if (asked === opened) { // an answer that comes late is not that of the label in the dialog
      list.replaceChildren(...versions.map(lineOf));
    }
  });
}

function lineOf({ id, ts, client, model_version: model, removed, kept }) {
  const from = model === null ? 'drawn without a model' : `begun from version ${count(model)} of the model`;
  const file = kept
    ? el('a', { href: `/loco/labels/${id}/file`, download: '' }, 'Download', el('span', { class: 'unseen' }, ` version of ${moment(ts)}`))
    : 'file not kept';
  return el('li', {},
    el('span', { class: 'row-head' }, el('b', {}, moment(ts)), file),
    el('span', { class: 'hint' }, `${client || 'somebody without a name'}, ${from}${removed ? `; removed ${moment(removed)}` : ''}`));
}
