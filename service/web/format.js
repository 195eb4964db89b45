/** Numbers, times and verdicts as people read them. */

const LEAST_DIGITS = 3;
const MOST_DIGITS = 6;
const whole = new Intl.NumberFormat("en");
const short = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const long = new Intl.DateTimeFormat(undefined, {
  ...{ year: "numeric", month: "long", day: "numeric" },
  ...{ hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" },
});

/** The name of the viewer's time zone, such as Europe/Oslo. */
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** "1 photo", "2,000 photos". */
export function count(number, noun, plural = `${noun}s`) {
  return `${whole.format(number)} ${number === 1 ? noun : plural}`;
}

/** "1,234". */
export function integer(number) {
  return whole.format(number);
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

/** A time of the API in the viewer's zone, such as "12 May 2024, 14:03". */
export function time(text) {
  return short.format(new Date(text));
}

/** The same with seconds and zone. */
export function timeInFull(text) {
  return long.format(new Date(text));
}

/** The value of a datetime-local input, in the viewer's zone, as the API takes it; null where there is none. */
export function toApiTime(value) {
  return value ? new Date(value).toISOString() : null;
}

/** The other way round. */
export function toInputTime(text) {
  const moment = new Date(text);
  return new Date(moment - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** What an answer says about the subject, as a sentence. */
export function verdict(answer) {
  const [best] = answer.matches;
  const name = best?.label ?? "the subject of the first match";
  switch (answer.verdict) {
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
