// Models: each version with its figures, which serves, back to an earlier one, and away as a MONAI bundle.

import { act, announce } from './actions.js';
import * as api from './api.js';
import { confirmed } from './dialogs.js';
import { el, keyed, part, setAttribute, setShown, setText } from './dom.js';
import { bytes, count, counted, duration, figure, marked, moment, sentence } from './format.js';

const FEW = 5;

export class Versions {
  constructor(root, page) {
    [this.root, this.page] = [root, page];
    part(root, 'older').addEventListener('click', () => {
      this.all = !this.all;
      this.show();
    });
    this.wanted = new Set(); // bundles asked for here: downloaded as soon as they are made
  }

  part(name) {
    return part(this.root, name);
  }

  async load() {
    this.models = await api.models();
    this.show();
  }

  show() {
    const { versions, kept } = this.models;
    const shown = versions.filter((version, i) => this.all || i < FEW || version.live);
    setText(this.part('lead'), versions.length
      ? `A version goes live when it is not worse on the same validation cases. The files of the ${count(kept)} newest are kept.`
      : '');
    setShown(this.part('nothing'), !versions.length);
    setShown(this.part('older'), versions.length > FEW);
    setText(this.part('older'), this.all ? 'Show the newest only' : `Show all ${counted(versions.length, 'version')}`);
    keyed(this.part('versions'), shown, v => v.version, v => this.make(v), (node, v) => this.fill(node, v));
  }

  make({ version }) {
    const said = el('p', { class: 'said', role: 'alert' });
    const button = (name, words, action) =>
      el('button', { class: 'button small', type: 'button', 'data-part': name, onclick: e => action(e.currentTarget, said) },
        words, el('span', { class: 'unseen' }, ` version ${version}`));
    return el('li', { class: 'card version' },
      el('div', { class: 'text' },
        el('div', { class: 'card-head' }, el('h3', {}, `Version ${count(version)}`), el('span', { class: 'badge', 'data-part': 'live', 'data-kind': 'good' }, 'live')),
        el('dl', { class: 'facts', 'data-part': 'facts' }),
        el('p', { class: 'hint', 'data-part': 'reason' })),
      el('div', { class: 'side' },
        el('div', { class: 'actions' },
          el('button', { class: 'button small', type: 'button', 'data-part': 'back', onclick: () => this.goLive(version) }),
          button('bundle', 'Make bundle', (b, s) => this.bundle(b, s, version)),
          el('a', { class: 'button small', 'data-part': 'download', download: '' })),
        el('div', { class: 'making', 'data-part': 'making' }, el('progress', { 'aria-label': `Making the bundle of version ${version}` }), el('span', { 'data-part': 'making-words' })),
        said));
  }

  fill(node, version) {
    setAttribute(node, 'data-live', String(version.live));
    setShown(part(node, 'live'), version.live);
    const make = () => el('div', {}, el('dt'), el('dd'));
    keyed(part(node, 'facts'), factsOf(version), ([name]) => name, make, (line, [name, value]) => {
      setText(line.querySelector('dt'), name);
      setText(line.querySelector('dd'), value);
    });
    setText(part(node, 'reason'), sentence(version.reason) + (version.size_bytes === null ? ' Its file is no longer kept.' : ''));
    const { admin } = this.page.summary.rights;
    setText(part(node, 'back'), this.wordsOf(version.version));
    setShown(part(node, 'back'), version.can_go_live && admin);
    this.fillBundle(node, version, admin);
  }

  fillBundle(node, { version, bundle, size_bytes: size }, admin) {
    const making = ['waiting', 'running'].includes(bundle.state);
    const ready = bundle.state === 'ready' && bundle.href;
    const [button, link] = [part(node, 'bundle'), part(node, 'download')];
    const held = document.activeElement === button;
    setShown(button, admin && !ready && !making && size !== null);
    setShown(link, admin && ready);
    setAttribute(link, 'href', bundle.href);
    setText(link, `Download bundle (${bytes(bundle.size_bytes)})`);
    setAttribute(link, 'aria-label', `Download the bundle of version ${version}, ${bytes(bundle.size_bytes)}`);
    setShown(part(node, 'making'), making);
    const time = bundle.seconds === null ? '' : `, ${duration(bundle.seconds)}`;
    setText(part(node, 'making-words'), making ? `${bundle.detail || 'Making the bundle'}${time}` : '');
    if (bundle.state === 'failed') {
      setText(node.querySelector('.said'), bundle.detail);
    }
    if (ready && this.wanted.delete(version)) {
      announce(`The bundle of version ${version} is ready.`);
      link.click();
    }
    if (held && ready) {
      link.focus({ preventScroll: true });
    }
  }

  bundle(button, said, version) {
    return act(button, said, async () => {
      await api.makeBundle(version);
      this.wanted.add(version);
      await this.page.look();
      return `The bundle of version ${version} is being made.`;
    });
  }

  // What it is to let a version serve.
  wordsOf(version) {
    const { live } = this.models;
    return live === null || version > live ? `Make version ${count(version)} live` : `Roll back to version ${count(version)}`;
  }

  goLive(version) {
    const words = this.wordsOf(version);
    confirmed({
      title: `${words}?`,
      text: `Version ${count(version)} serves from now on. The version that serves now is kept, and you can come back to it in the same way. The next training that is not worse goes live as usual.`,
      button: version < this.models.live ? 'Roll back' : 'Make live',
      action: async () => {
        await api.rollBack(version);
        await this.page.look();
        return `Version ${version} is live.`;
      },
    });
  }
}

function factsOf(version) {
  const each = Object.entries(version.per_class);
  return [
    ['Dice', version.cases ? `${figure(version.dice)} on ${counted(version.cases, 'case')}` : 'not measured'],
    ...(each.length > 1 ? each.map(([name, dice]) => [name, figure(dice)]) : []),
    ['Labels', version.labels === null ? null : count(version.labels)],
    ['Made', moment(version.ts)],
    ['Training', [marked(version), version.network].filter(Boolean).join(', ')],
  ].filter(([, value]) => value !== null && value !== '');
}
