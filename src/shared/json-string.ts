const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * Where a JSON string ends, found natively.
 *
 * @param start index of its opening quote
 * @returns index after its closing quote (the first with an even number of backslashes before it), or after the last byte where there is none
 */
export function stringEnd(json: Buffer, start: number): number {
  for (let quote = json.indexOf(QUOTE, start + 1); quote !== -1; quote = json.indexOf(QUOTE, quote + 1)) {
    let backslashes = 0;
    while (json[quote - 1 - backslashes] === BACKSLASH) backslashes += 1;
    if (backslashes % 2 === 0) return quote + 1;
  }
  return json.length;
}
