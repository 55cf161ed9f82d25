const CHARS_LEAST = 8;
const VALUES_MAX = 10_000;
const CENSOR = '[redacted]';
/** Buckets of the filter that tells positions where no secret can begin. */
const BUCKETS = 65_536;
const FACTOR = 31;
/** FACTOR to the power of CHARS_LEAST - 1, as 32 bits. */
const FACTOR_OF_FIRST = Array.from({ length: CHARS_LEAST - 1 }).reduce<number>((power) => Math.imul(power, FACTOR), 1);

/**
 * Secrets that must not be shown, whatever text they get into. A text is gone through once: a rolling hash over as many characters as the shortest
 * secret has says where one could begin, and only there is looked.
 */
export class RedactedValues {
  /** Spellings of each value, the oldest value first. */
  readonly #values = new Map<string, { spellings: readonly string[]; kept: boolean }>();
  /** By their first characters, with the number of values that have that spelling. */
  readonly #byBeginning = new Map<string, Map<string, number>>();
  /** How many spellings begin with what hashes to each bucket. */
  readonly #filter = new Uint32Array(BUCKETS);

  constructor(private readonly valuesMax: number = VALUES_MAX) {}

  get size(): number {
    return this.#values.size;
  }

  /**
   * From now on the value is redacted, unless it is shorter than eight characters: that would be found in what is none.
   *
   * @param kept it stays however many others come; for the few of the settings
   */
  add(value: string, kept = false): void {
    if (value.length < CHARS_LEAST) return;
    const known = this.#values.get(value);
    if (known !== undefined) {
      this.#values.delete(value);
      this.#values.set(value, { spellings: known.spellings, kept: known.kept || kept }); // the newest again
      return;
    }
    if (this.#values.size >= this.valuesMax) this.#dropOldest();
    const spellings = spellingsOf(value);
    this.#values.set(value, { spellings, kept });
    for (const spelling of spellings) this.#index(spelling);
  }

  /** The text, with every secret in it replaced. */
  redact(text: string): string {
    if (this.#values.size === 0 || text.length < CHARS_LEAST) return text;
    let result = '';
    let copiedTo = 0;
    let [from, to] = [0, 0];
    let hash = hashOf(text, 0);
    for (let at = 0; ; at++) {
      if (this.#filter[bucketOf(hash)] !== 0) {
        const end = this.#endOfSecret(text, at);
        if (end > to) {
          // Those that overlap go together, else the end of one would be left.
          if (at >= to) {
            if (to > from) {
              result += text.slice(copiedTo, from) + CENSOR;
              copiedTo = to;
            }
            from = at;
          }
          to = end;
        }
      }
      if (at + CHARS_LEAST >= text.length) break;
      hash = (Math.imul(hash - Math.imul(text.charCodeAt(at), FACTOR_OF_FIRST), FACTOR) + text.charCodeAt(at + CHARS_LEAST)) | 0;
    }
    if (to > from) {
      result += text.slice(copiedTo, from) + CENSOR;
      copiedTo = to;
    }
    return copiedTo === 0 ? text : result + text.slice(copiedTo);
  }

  /** Where the longest secret ends that begins here; 0 where none does. */
  #endOfSecret(text: string, at: number): number {
    const spellings = this.#byBeginning.get(text.slice(at, at + CHARS_LEAST));
    // Behind a backslash stands the second half of an escape: to cut it off would leave a line that is no JSON.
    if (spellings === undefined || isEscaped(text, at)) return 0;
    let end = 0;
    for (const spelling of spellings.keys()) if (at + spelling.length > end && text.startsWith(spelling, at)) end = at + spelling.length;
    return end;
  }

  #dropOldest(): void {
    for (const [value, { spellings, kept }] of this.#values) {
      if (kept) continue;
      this.#values.delete(value);
      for (const spelling of spellings) this.#unindex(spelling);
      return;
    }
  }

  #index(spelling: string): void {
    const beginning = spelling.slice(0, CHARS_LEAST);
    const spellings = this.#byBeginning.get(beginning) ?? new Map<string, number>();
    this.#byBeginning.set(beginning, spellings);
    spellings.set(spelling, (spellings.get(spelling) ?? 0) + 1);
    this.#filter[bucketOf(hashOf(beginning, 0))]! += 1;
  }

  #unindex(spelling: string): void {
    const beginning = spelling.slice(0, CHARS_LEAST);
    const spellings = this.#byBeginning.get(beginning)!;
    const left = spellings.get(spelling)! - 1;
    if (left > 0) spellings.set(spelling, left);
    else spellings.delete(spelling);
    if (spellings.size === 0) this.#byBeginning.delete(beginning);
    this.#filter[bucketOf(hashOf(beginning, 0))]! -= 1;
  }
}

/** As it is, in a JSON text, and in a JSON text within a JSON text. */
function spellingsOf(value: string): string[] {
  const once = JSON.stringify(value).slice(1, -1);
  return [...new Set([value, once, JSON.stringify(once).slice(1, -1)])];
}

function isEscaped(text: string, at: number): boolean {
  let backslashes = 0;
  while (text[at - 1 - backslashes] === '\\') backslashes += 1;
  return backslashes % 2 === 1;
}

function hashOf(text: string, at: number): number {
  let hash = 0;
  for (let n = 0; n < CHARS_LEAST; n++) hash = (Math.imul(hash, FACTOR) + text.charCodeAt(at + n)) | 0;
  return hash;
}

function bucketOf(hash: number): number {
  return (hash ^ (hash >>> 16)) & (BUCKETS - 1);
}
