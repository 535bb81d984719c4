// Pictures of studies with their layers, one image over the other, fetched when they come into view.

import { el, setAttribute, setShown, setText } from './dom.js';

const FIRST_MS = 1000;
const LONGEST_MS = 10000;
const TRIES = 60;

const LAYERS = {
  image: name => `Picture of ${name}`,
  contour: () => 'Outline by the model',
  band: () => 'Band in which lesion and surroundings hardly differ',
  label: () => 'Outline by the annotator',
};

const inView = new IntersectionObserver(
  entries => {
    for (const { target } of entries.filter(entry => entry.isIntersecting)) {
      inView.unobserve(target);
      fill(target);
    }
  },
  { rootMargin: '50% 0px' }
);

// An empty picture with these layers; `show` fills it.
export function picture(kind, layers) {
  const images = layers.map(layer => el('img', { 'data-layer': layer, alt: '', hidden: true }));
  return el('div', { class: kind }, ...images, el('span', { class: 'missing', hidden: true }));
}

// Show a study; `mark` changes when its pictures do. What is shown stays until the new picture is there.
export function show(node, name, mark) {
  if (node.dataset.image === name && node.dataset.mark === mark) {
    return;
  }
  Object.assign(node.dataset, { image: name, mark });
  inView.unobserve(node);
  inView.observe(node);
}

// All layers; `data-whole` says that nothing is missing any more.
async function fill(node) {
  const { image, mark } = node.dataset;
  delete node.dataset.whole;
  await Promise.all([...node.querySelectorAll('img')].map(layer => load(node, layer)));
  if (node.dataset.image === image && node.dataset.mark === mark) {
    node.dataset.whole = 'true';
  }
}

// 200: the layer; 202: it is being drawn, ask again; else there is none.
async function load(node, image) {
  const { image: name, mark } = node.dataset;
  const { layer } = image.dataset;
  const address = `/loco/page/thumbnail?${new URLSearchParams({ image: name, layer, v: mark })}`;
  for (let tries = 0; tries < TRIES; tries++) {
    const answer = await fetch(address, { credentials: 'same-origin' }).catch(() => null);
    if (!node.isConnected || node.dataset.image !== name || node.dataset.mark !== mark) {
      return;
    }
    if (answer !== null && answer.status !== 202) {
      put(node, image, answer.status === 200 ? await answer.blob() : null, LAYERS[layer](name));
      return;
    }
    if (layer === 'image' && !node.dataset.ready) {
      missing(node, 'The picture is being made');
    }
    await new Promise(done => setTimeout(done, Math.min(LONGEST_MS, FIRST_MS * 1.2 ** tries)));
  }
}

function put(node, image, blob, words) {
  setShown(image, blob);
  setAttribute(image, 'alt', blob ? words : '');
  if (blob) {
    const address = URL.createObjectURL(blob);
    image.onload = image.onerror = () => URL.revokeObjectURL(address);
    image.src = address;
  }
  if (image.dataset.layer === 'image') {
    setAttribute(node, 'data-ready', blob ? 'true' : null); // layers are not shown over nothing
    missing(node, blob ? '' : 'No picture');
  }
}

function missing(node, words) {
  const place = node.querySelector('.missing');
  setText(place, words);
  setShown(place, words);
}
