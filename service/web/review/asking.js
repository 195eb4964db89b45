/** The questions of a review, one after the other. What was asked, answered and not yet stored outlives a reload. */

import * as api from "../api/review.js";
import { review as words } from "../words.js";

const KEPT = "review"; // in the storage of this tab
const MOST_KEPT = 50; // answers that can be taken back after a reload
const SECONDS = 2; // until an outage is looked at again
const LEAST_ANSWERS = 5; // that tell how fast somebody is

/** Asks, stores answers and takes them back, one thing at a time; `changed` is called after each change. */
export class Asking {
  constructor(changed) {
    this.changed = changed;
    this.busy = false;
    this.over = false; // no question is left
    this.refusal = null; // why nothing is asked
    this.trouble = null; // what is tried again
    this.stopped = false;
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
    this.question = kept.question ?? null;
    this.waiting = kept.waiting ?? []; // asked before, and put back when an answer was taken back
    this.given = kept.given ?? null; // the answer that is being stored
    this.done = kept.done ?? [];
    this.shown = Date.now();
    if (this.question && !this.given && Date.parse(this.question.leased_until) < Date.now()) this.question = null;
  }

  /** Go on where this tab was. */
  async begin() {
    if (this.question && this.given) await this.store();
    else if (!this.question) await this.alone(() => this.ask());
    else this.changed();
  }

  stop() {
    this.stopped = true;
  }

  /** Answer the question, and ask the next one. */
  async answer(given) {
    if (this.busy || !this.question) return;
    this.given = given;
    await this.store();
  }

  /** Take the last answer back, and ask that again. */
  async undo() {
    if (this.busy || this.done.length === 0) return;
    await this.alone(async () => {
      const last = this.done.at(-1);
      await this.insist(() => api.undo(last.batchId)).catch((error) => {
        if (error.status !== 409) throw error; // somebody took it back before
      });
      this.done.pop();
      if (this.question) this.waiting.push(this.question);
      this.show(last.question);
    });
  }

  /** Seconds that an answer takes, in the middle; null until enough were given. */
  pace() {
    const seconds = this.done.map((one) => one.seconds).sort((a, b) => a - b);
    return seconds.length < LEAST_ANSWERS ? null : seconds[Math.floor(seconds.length / 2)];
  }

  async store() {
    const { question, given } = this;
    const seconds = (Date.now() - this.shown) / 1000;
    this.keep();
    await this.alone(async () => {
      try {
        const step = await this.insist(() => api.decide([{ question_id: question.question_id, answer: given }]));
        // Without an id it was stored before, by a request whose answer did not arrive.
        if (step.batch_id) this.done.push({ batchId: step.batch_id, question, given, seconds });
      } finally {
        this.given = null;
      }
      this.question = null;
      await this.ask();
    });
  }

  async ask() {
    const next = this.waiting.pop() ?? (await this.insist(api.nextQuestion));
    this.over = next === null;
    this.refusal = null;
    this.show(next);
  }

  show(question) {
    this.question = question;
    this.shown = Date.now();
    this.keep();
  }

  async alone(work) {
    this.busy = true;
    this.changed();
    try {
      await work();
    } catch (error) {
      if (!this.stopped) this.refusal = error;
    } finally {
      this.busy = false;
      this.trouble = null;
      this.keep();
      this.changed();
    }
  }

  /** Do something, again and again while the service is away. */
  async insist(work) {
    for (;;) {
      try {
        const result = await work();
        this.trouble = null;
        return result;
      } catch (error) {
        if (this.stopped || (error.status !== 0 && error.status < 500)) throw error;
        this.trouble = this.given ? words.notStored(error.message) : words.notAsked(error.message);
        this.changed();
        await new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS));
      }
    }
  }

  keep() {
    const { question, waiting, given } = this;
    sessionStorage.setItem(KEPT, JSON.stringify({ question, waiting, given, done: this.done.slice(-MOST_KEPT) }));
  }
}
