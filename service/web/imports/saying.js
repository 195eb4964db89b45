/** What the service says of an import, in the words of the page. */

import { integer } from "../format.js";
import { imports as words } from "../words.js";

const FEW = 5; // names in a line
const NAMED = new RegExp(`(^|; )(?:body\\.(?:said\\.)?)?(${Object.keys(words.fields).join("|")})(?=:? )`, "g");
const AS = new RegExp(` as (${Object.keys(words.fields).join("|")})(?=[,;]|$)`, "g");

/** What a field of photos is called; an attribute has its own name. */
export const fieldName = (name) => words.fields[name] ?? name;

/** A reason without the names that fields have for programs. */
export const plain = (reason) => reason.replace(NAMED, (_, before, name) => before + fieldName(name));

/** How a table is read, which names fields for programs behind "as". */
export const understood = (text) => text.replace(AS, (_, name) => ` as ${fieldName(name)}`);

/** The first of some names, and how many more there are. */
export function few(names, all) {
  const shown = names.slice(0, FEW);
  return shown.join(", ") + (all > shown.length ? ` ${words.more(integer(all - shown.length))}` : "");
}
