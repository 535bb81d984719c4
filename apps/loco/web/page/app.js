// The page: it asks every two seconds what has changed, and shows that in place.

import { announce, say } from './actions.js';
import * as api from './api.js';
import { el, part, setAttribute, setShown, setText } from './dom.js';
import { toTheSecond } from './format.js';
import { Labels } from './labels.js';
import { LearningCurves } from './learning.js';
import { Progress } from './progress.js';
import { Queue } from './queue.js';
import { Training } from './training.js';
import { Versions } from './versions.js';

const LOOK_MS = 2000;
const HIDDEN_MS = 20000;
const LONGEST_MS = 15000;
const TICK_MS = 10000;

const section = id => document.getElementById(id);

class Page {
  constructor() {
    this.summary = null;
    this.known = {};
    this.progress = new Progress(section('progress'), () => this.now());
    this.curves = new LearningCurves(section('learning'));
    this.training = new Training(section('training'), this);
    this.queue = new Queue(section('next'), this);
    this.labels = new Labels(section('labels'), this);
    this.versions = new Versions(section('models'), this);
    this.panels = {
      summary: { where: 'progress', load: () => this.loadSummary() },
      learning: { where: 'learning', load: () => this.loadLearning() },
      queue: { where: 'next', load: () => this.queue.load() },
      submissions: { where: 'labels', load: () => this.labels.load() },
      models: { where: 'models', load: () => this.versions.load() },
    };
  }

  // Unix seconds of the server, whose clock may be another one than that of this machine.
  now() {
    return Date.now() / 1000 + (this.ahead || 0);
  }

  async loadSummary() {
    const summary = await api.summary();
    this.summary = summary;
    this.ahead = summary.now - Date.now() / 1000;
    document.title = `${summary.project} · LoCo`;
    setText(section('project'), summary.project);
    setText(section('about'), aboutOf(summary));
    setShown(section('logout'), summary.rights.login);
    this.progress.show(summary);
    this.training.showRights(summary);
    if (this.live !== undefined && this.live !== summary.live_version && summary.live_version !== null) {
      announce(`Version ${summary.live_version} of the model is live.`);
    }
    this.live = summary.live_version;
  }

  async loadLearning() {
    const learning = await api.learning();
    this.curves.show(learning);
    this.training.show(learning);
  }

  // Ask what has changed and load that. Looks do not overlap: one that is asked for meanwhile follows.
  look() {
    this.looking = (this.looking || Promise.resolve()).catch(() => {}).then(() => this.lookOnce());
    return this.looking;
  }

  async lookOnce() {
    const marks = await api.changes();
    for (const [name, panel] of Object.entries(this.panels)) {
      if (this.known[name] !== marks[name] && (this.summary || name === 'summary')) {
        await this.loadPanel(name, panel, marks[name]);
      }
    }
  }

  // A panel that cannot be shown says why, and the others go on.
  async loadPanel(name, panel, mark) {
    const root = section(panel.where);
    let trouble = part(root, 'trouble');
    if (!trouble) {
      trouble = el('p', { class: 'said', role: 'alert', 'data-part': 'trouble' });
      root.querySelector('.section-head').after(trouble);
    }
    try {
      await panel.load();
      this.known[name] = mark;
      say(trouble, '');
    } catch (error) {
      if (error instanceof api.Offline || error instanceof api.LoggedOut) {
        throw error;
      }
      say(trouble, error.message);
    }
  }
}

// Says whether the server answers; only changes are read out.
class Connection {
  constructor(root) {
    this.root = root;
  }

  live() {
    this.seen = new Date();
    this.show('live', 'Live');
  }

  offline() {
    this.show('offline', this.seen ? `Offline, last seen ${toTheSecond(this.seen)}` : 'The server does not answer');
  }

  loggedOut() {
    this.show('offline', 'Logged out. ');
    const next = encodeURIComponent(window.location.pathname);
    part(this.root, 'words').append(el('a', { href: `/loco/login?next=${next}` }, 'Log in'));
  }

  show(state, words) {
    setAttribute(this.root, 'data-state', state);
    setText(part(this.root, 'words'), words);
  }
}

// Until time has passed, or the page is looked at again, or the network is back.
function pause(ms) {
  return new Promise(done => {
    const over = new AbortController();
    const wake = () => {
      if (!document.hidden) {
        clearTimeout(timer);
        over.abort();
        done();
      }
    };
    const timer = setTimeout(() => { over.abort(); done(); }, ms);
    document.addEventListener('visibilitychange', wake, { signal: over.signal });
    window.addEventListener('online', wake, { signal: over.signal });
  });
}

async function watch(page, connection) {
  let failures = 0;
  for (;;) {
    try {
      await page.look();
      failures = 0;
      connection.live();
    } catch (error) {
      failures += 1;
      if (error instanceof api.LoggedOut) {
        connection.loggedOut();
      } else if (error instanceof api.Offline) {
        connection.offline();
      } else {
        connection.show('offline', error.message);
      }
    }
    await pause(document.hidden ? HIDDEN_MS : Math.min(LONGEST_MS, LOOK_MS * 1.5 ** failures));
  }
}

// The part of the page that is looked at is marked in the navigation.
function followSections() {
  const links = new Map([...document.querySelectorAll('.top nav a')].map(a => [a.hash.slice(1), a]));
  const visible = new Set();
  const observer = new IntersectionObserver(entries => {
    entries.forEach(e => (e.isIntersecting ? visible.add(e.target.id) : visible.delete(e.target.id)));
    const first = [...links.keys()].find(id => visible.has(id));
    links.forEach((link, id) => setAttribute(link, 'aria-current', id === first ? 'true' : null));
  }, { rootMargin: '-20% 0px -60% 0px' });
  links.forEach((_, id) => observer.observe(section(id)));
}

function aboutOf({ model, classes, live_version: live, rights }) {
  const names = classes.map(one => one.name).join(', ');
  const serving = live === null ? 'no model yet' : `version ${live} serves`;
  return [`Model of ${model}s`, names, serving, rights.user && `logged in as ${rights.user}`].filter(Boolean).join(' · ');
}

const page = new Page();
const connection = new Connection(section('connection'));
window.addEventListener('loco-logged-out', () => connection.loggedOut());
setInterval(() => page.progress.tick(), TICK_MS);
followSections();
watch(page, connection);
