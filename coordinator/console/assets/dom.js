// Elements, made so that a text can only ever be a text.

// h makes an HTML element. In props, functions are listeners, true is an empty
// attribute, and null or false is none.
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

// s makes an SVG element.
export function s(tag, props, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false && c !== ""));
  return node;
}

// keyed makes parent's children those of items. An item that looks as before
// keeps its element, and with it the focus and what is selected.
export function keyed(parent, items, key, render) {
  const old = new Map([...parent.children].map((n) => [n.dataset.key, n]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const k = String(key(item));
    const look = JSON.stringify(item);
    let node = old.get(k);
    old.delete(k);
    if (!node || node.look !== look) {
      const fresh = Object.assign(render(item), { look });
      fresh.dataset.key = k;
      if (node) {
        if (node === place) place = fresh;
        swap(node, fresh);
      }
      node = fresh;
    }
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const gone of old.values()) gone.remove();
}

// swap puts one element in another's place, with the focus where it was.
export function swap(from, to) {
  const focusable = "a, button, input, summary, [tabindex]";
  const index = [...from.querySelectorAll(focusable)].indexOf(document.activeElement);
  from.replaceWith(to);
  if (index >= 0) to.querySelectorAll(focusable)[index]?.focus({ preventScroll: true });
}

// say replaces what an element says when it says something else, so that
// nobody hears the same again and again.
export function say(node, ...parts) {
  const next = h("span", {}, parts);
  if (node.textContent !== next.textContent || node.childElementCount !== next.childElementCount) node.replaceChildren(...next.childNodes);
}

// announce tells those who hear the page what those who see it see.
export function announce(text) {
  document.getElementById("live").textContent = text;
}

// banner shows a trouble of the whole page; without a text it goes away.
export function banner(text) {
  const node = document.getElementById("banner");
  if (node.textContent !== (text ?? "")) node.textContent = text ?? "";
  node.hidden = !text;
}
