/** Numbers, times and verdicts as people read them. */

const LEAST_DIGITS = 3;
const MOST_DIGITS = 6;
const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB"];
const whole = new Intl.NumberFormat("en");
const short = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
/** @type {Intl.DateTimeFormatOptions} */
const inFull = {
  ...{ year: "numeric", month: "long", day: "numeric" },
  ...{ hour: "2-digit", minute: "2-digit", second: "2-digit" },
};
const long = new Intl.DateTimeFormat(undefined, { ...inFull, timeZoneName: "short" });
// Of clocks elsewhere, whose times are moved to UTC by their offset.
const shortThere = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
const longThere = new Intl.DateTimeFormat(undefined, { ...inFull, timeZone: "UTC" });

/** The name of the viewer's time zone, such as Europe/Oslo. */
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Compares names as people sort them, N2 before N10. */
export const inOrder = new Intl.Collator("en", { numeric: true }).compare;

/** "1 photo", "2,000 photos". */
export function count(number, noun, plural = `${noun}s`) {
  return `${whole.format(number)} ${number === 1 ? noun : plural}`;
}

/** "1,234". */
export function integer(number) {
  return whole.format(number);
}

/** Bytes as disks are sold: "1.2 GB", "340 kB". */
export function size(bytes) {
  const step = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const value = bytes / 1000 ** step;
  return `${value.toFixed(step > 0 && value < 10 ? 1 : 0)} ${UNITS[step]}`;
}

/** The fewest decimals that tell every score from the next, for cosines may all lie near 1. */
export function digitsFor(scores) {
  const sorted = [...new Set(scores)].sort((a, b) => a - b);
  for (let digits = LEAST_DIGITS; digits < MOST_DIGITS; digits++) {
    if (new Set(sorted.map((score) => score.toFixed(digits))).size === sorted.length) return digits;
  }
  return MOST_DIGITS;
}

/** A probability in percent, which reads 0 or 100 only where it is. */
export function percent(probability) {
  if (probability > 0 && probability < 0.001) return "< 0.1 %";
  if (probability < 1 && probability > 0.999) return "> 99.9 %";
  const value = 100 * probability;
  return `${value.toFixed(value > 1 && value < 99 ? 0 : 1)} %`;
}

/** The offset of the camera's clock that a time of the API tells, such as "+02:00"; "" for a time in UTC. */
export function clockOf(text) {
  return text.match(/[+-]\d\d:\d\d$/)?.[0] ?? "";
}

/** A time of the API as the camera's clock showed it, "3 May 2026, 06:41 +02:00", else in the viewer's zone. */
export function time(text) {
  const clock = clockOf(text);
  return clock ? `${shortThere.format(asShown(text))} ${clock}` : short.format(new Date(text));
}

/** The same, in UTC where the photo tells no zone: never in that of the viewer. */
export function timeThere(text) {
  return clockOf(text) ? time(text) : `${shortThere.format(new Date(text))} UTC`;
}

/** The same with seconds and zone. */
export function timeInFull(text) {
  const clock = clockOf(text);
  return clock ? `${longThere.format(asShown(text))} ${clock}` : long.format(new Date(text));
}

function asShown(text) {
  return new Date(`${text.slice(0, -clockOf(text).length)}Z`);
}

/** The value of a datetime-local input, in the viewer's zone, as the API takes it; null where there is none. */
export function toApiTime(value) {
  return value ? new Date(value).toISOString() : null;
}

/** The other way round. */
export function toInputTime(text) {
  const moment = new Date(text);
  return new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** What an answer says about the subject: "known", "ambiguous", "unknown", or "" where it says nothing. */
export function verdictOf(answer) {
  const probability = answer.matches[0]?.probability ?? null;
  // The verdict is about the subject, the probability about one photo; "known" beside 30 % would be believed by nobody.
  return answer.verdict === "known" && probability !== null && probability < 0.5 ? "ambiguous" : (answer.verdict ?? "");
}

/** The same as a sentence. */
export function verdict(answer) {
  const [best] = answer.matches;
  const name = best?.label ?? "the subject of the first match";
  switch (verdictOf(answer)) {
    case "known":
      return best ? `Known: most likely ${name}.` : "Known: most likely one of the photos searched.";
    case "ambiguous":
      return "Unclear: the best match may be the same subject or one that looks alike. Compare by eye.";
    case "unknown":
      return "Unknown: most likely none of the photos searched shows this subject.";
    default:
      return "";
  }
}

/** The name of a photo's file, not where it lies on the server. */
export function fileName(source) {
  return source?.split(/[\\/]/).at(-1);
}
