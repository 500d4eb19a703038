// Elements: found by id, and made.

export const $ = (id) => document.getElementById(id);

export function make(tag, values = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...inside);
  return made;
}
