/** Which files are worth sending, judged by name, kind and size before anything is sent. */

import { count } from "./format.js";
import { files as words } from "./words.js";

export const MOST_FILES = 32; // of a request
export const MOST_BYTES = 60 * 2 ** 20; // of 64 MiB; the rest is for what surrounds the files

const PICTURES = new Set("avif bmp gif heic heif hif jfif jpe jpeg jpg mpo png tif tiff webp".split(" "));
const OTHERS = /\.(csv|tsv|zip)$/i; // what an import takes beside pictures
/** @type {WeakMap<File, string>} */
const dropped = new WeakMap();
const REASONS = [
  [words.raw, "3fr arw cr2 cr3 crw dng erf kdc mrw nef nrw orf pef raf raw rw2 sr2 srw x3f"],
  [words.video, "3gp avi m4v mkv mov mp4 mpeg mpg mts webm wmv"],
  [words.archive, "7z gz rar tar tgz zip"],
  [words.system, "db ini ds_store lnk"],
];

/**
 * Part files into those to send and those that are left out, each with its reason.
 * @param {File[]} files
 * @returns {{good: File[], refused: {name: string, reason: string}[]}}
 */
export function sorted(files) {
  const judged = files.map((file) => ({ file, reason: reasonAgainst(file) }));
  return {
    good: judged.filter(({ reason }) => reason === null).map(({ file }) => file),
    refused: judged.filter(({ reason }) => reason !== null).map(({ file, reason }) => ({ name: file.name, reason })),
  };
}

/** The same of files for an import, which takes tables and archives, too; their names are paths. */
export function importable(files) {
  const judged = files.map((file) => ({ file, reason: OTHERS.test(file.name) && file.size > 0 ? null : reasonAgainst(file) }));
  return {
    good: judged.filter(({ reason }) => reason === null).map(({ file }) => file),
    refused: judged.filter(({ reason }) => reason !== null).map(({ file, reason }) => ({ name: pathOf(file), reason })),
  };
}

/** The path of a file below the folder that was chosen or dropped, or its name. */
export function pathOf(file) {
  return dropped.get(file) ?? (file.webkitRelativePath || file.name);
}

/** Note where a file lay that was dropped with its folder, which it does not tell itself. */
export function notePath(file, path) {
  dropped.set(file, path.replace(/^\//, ""));
}

/** The same for what one request may bring of them. */
export function fitted(files) {
  let bytes = 0;
  const fits = (file) => (bytes += file.size) <= MOST_BYTES;
  const good = files.slice(0, MOST_FILES).filter(fits);
  const beyond = files.filter((file) => !good.includes(file));
  return { good, refused: beyond.map(({ name }) => ({ name, reason: words.tooMany(MOST_FILES) })) };
}

function reasonAgainst(file) {
  const extension = file.name.toLowerCase().match(/\.([^.]+)$/)?.[1] ?? "";
  const known = REASONS.find(([, extensions]) => extensions.split(" ").includes(extension));
  if (known) return known[0];
  if (file.size === 0) return words.empty;
  if (file.size > MOST_BYTES) return words.tooLarge(count(Math.ceil(file.size / 2 ** 20), "MB", "MB"), MOST_BYTES / 2 ** 20);
  // A browser knows kinds that are not listed here, and a name may have no ending: the service looks inside.
  return extension === "" || PICTURES.has(extension) || file.type.startsWith("image/") ? null : words.noPicture;
}
