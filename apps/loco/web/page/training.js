// The running training, or the last one and what the next waits for; start and stop.

import { act, say } from './actions.js';
import { post, remove } from './api.js';
import { lines } from './chart.js';
import { el, keyed, part, setAttribute, setShown, setText } from './dom.js';
import { count, duration, figure, loss, marked, moment, readable, sentence, share } from './format.js';

const STATES = {
  running: ['running', 'accent'],
  done: ['done', 'good'],
  failed: ['failed', 'bad'],
  stopped: ['stopped', 'warn'],
  interrupted: ['interrupted', 'warn'],
};
const ROWS = 20;

export class Training {
  constructor(root, page) {
    [this.root, this.page] = [root, page];
    const said = this.part('said');
    this.part('start').addEventListener('click', e => act(e.currentTarget, said, () => this.start()));
    this.part('stop').addEventListener('click', e => act(e.currentTarget, said, () => this.stop()));
  }

  part(name) {
    return part(this.root, name);
  }

  async start() {
    await post(`/train/${encodeURIComponent(this.page.summary.model)}`);
    say(this.part('said'), 'The training was asked for; it begins in a few seconds.', 'good');
    await this.page.look();
  }

  async stop() {
    await remove('/train/');
    say(this.part('said'), 'The training ends in a moment. What it has learnt so far is kept; Start goes on with it.', 'good');
    await this.page.look();
  }

  showRights(summary) {
    const { retraining, rights } = summary;
    setShown(this.part('waits'), !retraining.running);
    setShown(this.part('buttons'), rights.admin && summary.labelled > 0);
    setText(this.part('waits'), retraining.enabled ? `The next training by itself: ${retraining.waiting_for}.` : sentence(retraining.waiting_for));
  }

  show({ training, starting }) {
    const running = training?.status === 'running';
    const [words, kind] = starting && !running ? ['starting', 'accent'] : STATES[training?.status] || ['none yet', 'plain'];
    setText(this.part('status'), words);
    setAttribute(this.part('status'), 'data-kind', kind);
    this.buttons(running || starting);
    if (training && training.run !== this.run) {
      say(this.part('said'), '');
    }
    this.run = training?.run;
    setShown(this.part('run'), training);
    if (training) {
      this.showRun(training, running);
    }
  }

  // One of the two, and the keyboard stays on it.
  buttons(busy) {
    const [shown, other] = busy ? ['stop', 'start'] : ['start', 'stop'];
    const held = document.activeElement === this.part(other);
    setShown(this.part(shown), true);
    setShown(this.part(other), false);
    if (held) {
      this.part(shown).focus({ preventScroll: true });
    }
  }

  showRun(training, running) {
    const bar = this.part('bar');
    const known = training.steps > 0;
    setShown(bar, running);
    if (known) {
      setAttribute(bar, 'value', training.step / training.steps);
    } else {
      setAttribute(bar, 'value', null);
    }
    const steps = known ? `Step ${count(training.step)} of ${count(training.steps)}` : 'Getting ready';
    const left = running && training.seconds_left !== null ? `, about ${duration(training.seconds_left)} left` : '';
    setText(this.part('steps'), running ? steps + left : outcome(training));
    const facts = factsOf(training);
    const make = () => el('div', {}, el('dt'), el('dd'));
    keyed(this.part('facts'), facts, ([name]) => name, make, (node, [name, value]) => {
      setText(node.querySelector('dt'), name);
      setText(node.querySelector('dd'), value);
    });
    this.showLosses(training);
  }

  showLosses({ run, history }) {
    setShown(this.part('losses'), history.length > 1);
    const drawn = `${run}:${history.length}:${history.at(-1)?.step}`;
    if (history.length < 2 || drawn === this.drawn) {
      return;
    }
    this.drawn = drawn;
    const names = [...new Set(history.flatMap(point => Object.keys(point.terms)))];
    const shown = history.filter((_, i) => (history.length - 1 - i) % Math.ceil(history.length / ROWS) === 0);
    lines(this.part('losses-chart'), {
      title: 'Losses of the training by step',
      description: 'Each loss as a share of its own maximum; the mask ratio as it is.',
      xName: 'step',
      yName: 'share of maximum',
      xText: count,
      yText: share,
      xTicks: 'some',
      series: names.map(name => relative(name, history)),
      heads: ['Step', ...names.map(readable)],
      rows: shown.map(point => [count(point.step), ...names.map(name => loss(point.terms[name]))]),
    });
  }
}

function outcome(training) {
  const took = training.ended ? ` after ${duration(training.ended - training.started)}` : '';
  const when = training.ended ? `, ${moment(training.ended)}` : '';
  return `Run ${training.run}: ${STATES[training.status][0]}${took}${when}${training.detail ? `. ${sentence(training.detail)}` : '.'}`;
}

function factsOf(training) {
  const known = Number.isFinite;
  return [
    ['Started because', training.reason],
    ['Epoch', training.epochs ? `${count(training.epoch)} of ${count(training.epochs)}` : null],
    ['Labelled', training.steps ? count(training.labelled) : null],
    ['Unlabelled', training.steps ? count(training.unlabelled) : null],
    ['Validation', training.steps ? count(training.validation) : null],
    ...Object.entries(training.terms).filter(([, v]) => known(v)).map(([name, v]) => [readable(name), loss(v)]),
    ['Mask ratio', known(training.mask_ratio) ? share(training.mask_ratio) : null],
    ['Best Dice', known(training.best_dice) ? figure(training.best_dice) : null],
    ['Method', marked(training)],
    ['Network', training.network],
  ].filter(([, value]) => value);
}

function relative(name, history) {
  const known = history.filter(point => Number.isFinite(point.terms[name]));
  const highest = name === 'mask_ratio' ? 1 : Math.max(1e-12, ...known.map(point => Math.abs(point.terms[name])));
  return {
    name: readable(name),
    bare: true,
    points: known.map(point => ({
      x: point.step,
      y: point.terms[name] / highest,
      hint: `Step ${count(point.step)}: ${readable(name)} ${loss(point.terms[name])}`,
    })),
  };
}
