// Small helpers around the DOM. Everything that comes from the server is set as text, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

// An element: el('p', { class: 'hint', hidden: true }, 'words', child). Functions are listeners: { onclick: f }.
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// The same in SVG.
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') {
      node.addEventListener(name.slice(2), value);
    } else {
      setAttribute(node, name, value);
    }
  }
  node.append(...children.filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

// Set an attribute if it has changed; false and null remove it, true sets it without a value.
export function setAttribute(node, name, value) {
  if (value === false || value === null || value === undefined) {
    node.removeAttribute(name);
  } else {
    const text = value === true ? '' : String(value);
    if (node.getAttribute(name) !== text) {
      node.setAttribute(name, text);
    }
  }
}

// Set the text of a node if it has changed, so that selections and screen readers are left in peace.
export function setText(node, text) {
  const words = text === null || text === undefined ? '' : String(text);
  if (node.textContent !== words) {
    node.textContent = words;
  }
}

// Show or hide.
export function setShown(node, shown) {
  if (node.hidden === Boolean(shown)) {
    node.hidden = !shown;
  }
}

// The part of a panel with that name: <p data-part="name">.
export function part(root, name) {
  return root.querySelector(`[data-part="${name}"]`);
}

// Bring the children of `parent` in line with `items` in place: what stays is updated, not made anew.
// `make(item)` returns a new node, `update(node, item)` fills it; the focus stays where it is, also when a node moves.
export function keyed(parent, items, keyOf, make, update) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const old = new Map([...parent.children].map(node => [node.dataset.key, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = old.get(key);
    if (node) {
      old.delete(key);
    } else {
      node = make(item);
      node.dataset.key = key;
    }
    update(node, item);
    if (node === place) {
      place = place.nextElementSibling;
    } else {
      parent.insertBefore(node, place);
    }
  }
  old.forEach(node => node.remove());
  if (focused?.isConnected && document.activeElement !== focused) {
    focused.focus({ preventScroll: true });
  }
}
