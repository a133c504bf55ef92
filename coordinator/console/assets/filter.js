// Filters: what stands in the address, and what the server is asked.

// The fields of an address that select transactions.
export const fields = ["state", "unfinished", "stalled", "paused", "name", "participant", "label", "filter"];

const quote = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

// filterOf makes the server's filter of an address's query.
export function filterOf(query) {
  const terms = [];
  for (const field of ["state", "name", "participant"]) {
    if (query.get(field)) terms.push(`${field} = ${quote(query.get(field))}`);
  }
  for (const field of ["unfinished", "stalled", "paused"]) {
    if (query.get(field)) terms.push(`${field} = ${query.get(field)}`);
  }
  const label = query.get("label") ?? "";
  if (label) {
    const cut = label.indexOf("=");
    terms.push(cut > 0 ? `labels.${label.slice(0, cut).trim()} = ${quote(label.slice(cut + 1).trim())}` : `labels.${label} = ""`);
  }
  if (query.get("filter")) terms.push(query.get("filter"));
  return terms.join(" AND ");
}

// actionable narrows a filter to what a verb can act on.
export function actionable(query) {
  const filter = filterOf(query);
  if (query.get("state") || /\b(state|unfinished)\b/.test(filter)) return filter;
  return [filter, "unfinished = true"].filter(Boolean).join(" AND ");
}

// only are the filter's fields of an address, without its page.
export function only(query) {
  return Object.fromEntries(fields.map((f) => [f, query.get(f) ?? ""]));
}
