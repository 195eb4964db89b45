/** Spellings of names. */

/** A name without what tells spellings of one apart: Unicode form, case and spaces. */
export function plain(name) {
  return name.normalize("NFKC").toLowerCase().split(/\s+/).filter(Boolean).join(" ");
}
