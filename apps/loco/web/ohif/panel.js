// LoCo's panel in OHIF's MONAI Label mode: run, correct, submit, next, skip, and the training as it goes on.
import { mendExport } from './export.js';
import * as server from './server.js';
import * as viewer from './viewer.js';

const MODE = '/ohif/monai-label';
const STUDY = 'StudyInstanceUIDs'; // these three are OHIF's own parameters
const SERIES = 'SeriesInstanceUIDs';
const PICTURE = 'initialSOPInstanceUID';
const FRAME = 'frame'; // of a film
const WAIT_MS = 500;
const POLL_MS = 3000;
const TOOLS = { brush: 'CircularBrush', eraser: 'CircularEraser', window: 'WindowLevel' };
const MARKUP = `
  <h2>LoCo <span data-loco="state">connecting ...</span></h2>
  <p data-loco="message" role="status"></p>
  <section>
    <p><b data-loco="image"></b></p>
    <p data-loco="reason"></p>
    <div><button data-loco="run">Run model</button></div>
  </section>
  <section>
    <div class="loco-classes" data-loco="classes"></div>
    <div>
      <button data-loco="brush">Brush</button><button data-loco="eraser">Eraser</button><button data-loco="window">Contrast</button>
    </div>
    <label>Size <input data-loco="size" type="range" min="1" max="40" value="8"></label>
  </section>
  <section>
    <div><button data-loco="submit" class="loco-main">Submit</button><button data-loco="next">Next Sample</button></div>
    <div data-loco="skipping"><select data-loco="why"></select><button data-loco="skip">Skip</button></div>
    <label>You are <input data-loco="client" type="text" autocomplete="off"></label>
  </section>
  <section>
    <p data-loco="model"></p>
    <progress data-loco="progress" max="1" value="0"></progress>
    <p data-loco="training"></p>
    <div><button data-loco="train">Update Model</button><button data-loco="stop">Stop</button></div>
  </section>`;

class Panel {
  constructor(root) {
    this.root = root;
    this.last = Promise.resolve();
    this.tool = 'brush';
    this.equipped = ''; // which viewports have it
    this.followed = new Set(); // their elements
    root.innerHTML = MARKUP;
    this.part('client').value = clientName();
    this.part('client').addEventListener('change', e => localStorage.setItem('loco-client', e.target.value.trim()));
    this.part('size').addEventListener('input', () => this.resize());
    const actions = {
      run: () => this.run(), submit: () => this.submit(), next: () => this.next(), skip: () => this.skip(),
      train: () => this.train(), stop: () => this.stop(),
      brush: () => this.use('brush'), eraser: () => this.use('eraser'), window: () => this.use('window'),
    };
    for (const [name, action] of Object.entries(actions)) {
      this.part(name).addEventListener('click', () => this.perform(action));
    }
    this.keepOpening();
    this.poll();
  }

  part(name) {
    return this.root.querySelector(`[data-loco="${name}"]`);
  }

  say(sentence, kind = '') {
    const message = this.part('message');
    message.textContent = sentence;
    message.dataset.kind = kind;
  }

  // Run one action; while it lasts no other one begins, and what goes wrong is said in the panel.
  async perform(action) {
    const buttons = this.root.querySelectorAll('button');
    buttons.forEach(button => (button.disabled = true));
    try {
      await action();
    } catch (error) {
      this.say(error.message, 'error');
    } finally {
      buttons.forEach(button => (button.disabled = false));
    }
  }

  // What stands in the way, such as a server that is just starting, is said and may pass.
  async keepOpening() {
    while (this.root.isConnected && !this.root.dataset.ready) {
      await this.perform(() => this.open());
      await new Promise(done => setTimeout(done, POLL_MS));
    }
  }

  // Wait for the image, then lay an empty label map over it.
  async open() {
    this.info = await server.info();
    this.labels = this.info.labels;
    this.showReasons(await server.skipReasons().catch(() => []));
    this.part('state').textContent = 'connected';
    while (!(this.view = viewer.shown())) {
      viewer.showPictures();
      await new Promise(done => setTimeout(done, WAIT_MS));
      if (!this.root.isConnected) {
        return; // OHIF built its page anew, and there is a new panel
      }
    }
    this.showClasses();
    this.followViewer();
    await this.inTurn(() => this.settle());
    this.root.dataset.ready = 'true';
    this.say('');
  }

  // The label map over what the active viewport shows, and of a series the picture that the address names.
  async settle() {
    this.view = viewer.shown() || this.view; // one that is being set up is looked at when it is
    if (!this.view || !this.labels) {
      throw new Error('No image is open yet; open a study first.');
    }
    await viewer.prepare(this.view, this.labels);
    viewer.activateSegment(this.view, this.segment);
    if (this.equipped !== this.view.viewports.join()) {
      this.equipped = this.view.viewports.join();
      this.use(this.tool);
    }
    viewer.onOtherPicture(this.view, this.followed, this.follow(() => this.stay()));
    await this.stay();
  }

  // Until the annotator looks elsewhere, the picture that the address names is shown.
  async stay() {
    const wanted = this.wanted();
    if (wanted) {
      await viewer.goTo(this.view, wanted.get(PICTURE), wanted.get(FRAME));
    }
    await this.look();
  }

  wanted() {
    const place = new URLSearchParams(window.location.search);
    return place.has(PICTURE) && !this.moved ? place : null;
  }

  // Scrolling shows another picture. So does OHIF by itself: a viewport that it sets up a second time begins at the first picture
  // again, without a label map, and a scroll that waited for a picture comes late.
  followViewer() {
    if (this.following) {
      return;
    }
    this.following = true;
    for (const input of ['wheel', 'keydown', 'pointerdown']) {
      document.addEventListener(input, event => (this.moved ||= this.movesOn(event)), { capture: true, passive: true });
    }
    viewer.onSetUp(this.follow(() => this.settle()));
  }

  follow(action) {
    return () => this.inTurn(action).catch(error => this.say(error.message, 'error'));
  }

  // One after the other, while the panel is there.
  inTurn(action) {
    const turn = this.last.then(() => this.root.isConnected && action());
    this.last = turn.catch(() => null);
    return turn;
  }

  // Whether an input may lead to another picture: not one in the panel, nor the left button that draws.
  movesOn({ type, target, button }) {
    const draws = type === 'pointerdown' && button === 0 && target.closest('.viewport-element');
    return !draws && !this.root.contains(target);
  }

  // Which image of the server is looked at: in a series of pictures it changes from picture to picture.
  async look() {
    for (let seen = viewer.current(this.view); seen.instance !== this.instance; seen = viewer.current(this.view)) {
      this.showImage(''); // a series that the server does not know is none
      this.showImage((await server.imageOf(this.view.set.SeriesInstanceUID, seen.instance)).image);
      this.instance = seen.instance;
    }
  }

  showImage(image) {
    this.image = image;
    this.part('image').textContent = image;
    this.part('reason').textContent = image && reasonFor(image);
  }

  showClasses() {
    const entries = Object.entries(this.labels).map(([label, index], i) => {
      const choice = document.createElement('label');
      choice.innerHTML = '<input type="radio" name="loco-class"><span></span>';
      choice.querySelector('span').textContent = label;
      const input = choice.querySelector('input');
      input.checked = i === 0;
      input.addEventListener('change', () => viewer.activateSegment(this.view, (this.segment = index)));
      return choice;
    });
    this.part('classes').replaceChildren(...entries);
    this.segment = Object.values(this.labels)[0];
  }

  // A server that knows no reasons cannot pass an image by either.
  showReasons(reasons) {
    this.part('skipping').hidden = !reasons.length;
    this.part('why').replaceChildren(
      ...reasons.map(({ reason, meaning }) => Object.assign(new Option(reason), { title: meaning }))
    );
  }

  use(tool) {
    this.tool = tool;
    viewer.useTool(TOOLS[tool], this.view.viewports);
    Object.keys(TOOLS).forEach(t => this.part(t).classList.toggle('loco-on', t === tool));
    this.resize();
  }

  resize() {
    viewer.setBrushSize(Number(this.part('size').value), this.view.viewports);
  }

  async run() {
    await this.inTurn(() => this.settle());
    this.say('The model is looking at the image ...');
    const { view, image } = this; // another series or picture may be looked at when the mask comes
    const { place } = viewer.current(view);
    viewer.showMask(await server.infer(this.model(), image, this.client()), view, place);
    this.say('This is what the model sees. Correct it, then submit.', 'good');
  }

  async submit() {
    await this.inTurn(() => this.settle());
    const { view, image } = this; // scrolling meanwhile must not put this mask on another picture
    const { file, empty } = await viewer.labelFile(view);
    if (empty && !window.confirm('Nothing is labelled. Submit the image as one without any of the classes?')) {
      this.say('Nothing was submitted. Draw with the brush, or run the model, then submit.');
      return;
    }
    this.say('Submitting ...');
    const { note } = await server.submit(image, file, this.labels, this.client());
    this.say(note || 'The label was submitted. Thank you.', note ? '' : 'good');
    await this.refresh();
  }

  async next() {
    const found = await server.next('random', this.client()); // the name under which the configured strategy goes
    if (!found.id) {
      this.say('Every image has a label or is being labelled by somebody else. Nothing is left.', 'good');
      return;
    }
    if (!found.StudyInstanceUID) {
      throw new Error(`${found.id} was chosen, but the server does not say in which study it is; open it by hand.`);
    }
    sessionStorage.setItem('loco-reason', JSON.stringify({ image: found.id, reason: found.reason || '' }));
    const place = new URLSearchParams({ [STUDY]: found.StudyInstanceUID });
    const details = { [SERIES]: found.SeriesInstanceUID, [PICTURE]: found.SOPInstanceUID, [FRAME]: found.Frame };
    Object.entries(details).forEach(([name, value]) => value && place.set(name, value));
    window.location.assign(`${MODE}?${place}`);
  }

  async skip() {
    await this.inTurn(() => this.settle());
    await server.skip(this.image, this.client(), this.part('why').value);
    await this.next();
  }

  async train() {
    await server.train(this.model());
    this.say('The training was started.', 'good');
    await this.refresh();
  }

  async stop() {
    await server.stop();
    this.say('The training was stopped. What it has learnt so far is kept; Update Model goes on with it.', 'good');
    await this.refresh();
  }

  model() {
    return Object.keys(this.info.trainers)[0];
  }

  client() {
    return this.part('client').value.trim();
  }

  async poll() {
    while (this.root.isConnected) {
      await new Promise(done => setTimeout(done, POLL_MS));
      await this.refresh().catch(error => (this.part('state').textContent = error.message));
      if (this.root.dataset.ready && this.wanted()) {
        await this.inTurn(() => this.stay()).catch(error => this.say(error.message, 'error')); // as a rule it is there already
      }
    }
  }

  // Labels and training as they are now.
  async refresh() {
    this.info = await server.info();
    this.part('state').textContent = 'connected';
    const { total, completed } = this.info.datastore;
    const stats = this.info.train_stats[this.model()] || {};
    const words = [`${completed} of ${total} images labelled`];
    if (stats.live_version) {
      words.push(`model version ${stats.live_version}`);
    }
    if (stats.best_metric > 0) {
      words.push(`Dice ${Number(stats.best_metric).toFixed(2)}`);
    }
    this.part('model').textContent = words.join(', ');
    this.part('progress').value = stats.total_epochs ? (stats.epoch || 0) / stats.total_epochs : 0;
    const epochs = stats.total_epochs ? `epoch ${stats.epoch || 0} of ${stats.total_epochs}` : '';
    this.part('training').textContent = [stats.status || 'no training yet', epochs].filter(Boolean).join(': ');
  }
}

function clientName() {
  const known = localStorage.getItem('loco-client') || `annotator-${crypto.getRandomValues(new Uint16Array(1))[0]}`;
  localStorage.setItem('loco-client', known);
  return known;
}

// Why this image was chosen, if it was.
function reasonFor(image) {
  const chosen = JSON.parse(sessionStorage.getItem('loco-reason') || '{}');
  return chosen.image === image && chosen.reason ? `Chosen because: ${chosen.reason}` : '';
}

// A SEG of a picture has no place in space, and OHIF cannot open a study with one: such a study is opened by its pictures.
async function leaveSegOut() {
  const place = new URL(window.location.href);
  if (place.pathname !== MODE || !place.searchParams.has(STUDY) || place.searchParams.has(SERIES)) {
    return;
  }
  const { series } = await server.picturesOf(place.searchParams.get(STUDY));
  if (series.length) {
    place.searchParams.set(SERIES, series.join(','));
    window.location.replace(place);
  }
}

// The study list blocks the mode for everything but CT and MR; here it works for every study.
function offerMode() {
  for (const blocked of document.querySelectorAll('a.cursor-not-allowed[href*="/monai-label?"]:not([hidden])')) {
    const own = document.createElement('a');
    own.className = 'loco-open';
    own.href = blocked.href;
    own.textContent = 'Annotate with LoCo';
    blocked.hidden = true;
    blocked.after(own);
  }
}

// MONAI Label's own panel of this build cannot submit and knows other models; ours takes its place.
function mount() {
  const stock = document.querySelector('.monaiLabelPanel');
  if (stock && !document.querySelector('.loco-panel')) {
    const root = document.createElement('div');
    root.className = 'loco-panel';
    stock.before(root);
    new Panel(root);
  }
}

leaveSegOut().catch(error => console.warn(error.message));
new MutationObserver(() => {
  mendExport();
  offerMode();
  mount();
}).observe(document.documentElement, { childList: true, subtree: true });
