/**
 * The emulator's one token rule: a token is four UTF-8 bytes, rounded up. No public Grok tokenizer exists, so what matters is that
 * prompts, answers, limits and prices all count alike.
 */
export const BYTES_PER_TOKEN = 4;

export function countTokens(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / BYTES_PER_TOKEN);
}

/**
 * Cuts a text into its tokens, without breaking a character: piece k ends at the last character within the first 4k bytes.
 * As no character is longer than a token, no piece is empty, and the first k pieces always count k tokens.
 */
export function splitTokens(text: string): string[] {
  const pieces: string[] = [];
  let piece = '';
  let bytes = 0;
  for (const character of text) {
    bytes += Buffer.byteLength(character);
    if (bytes > (pieces.length + 1) * BYTES_PER_TOKEN) {
      pieces.push(piece);
      piece = '';
    }
    piece += character;
  }
  if (piece !== '') pieces.push(piece);
  return pieces;
}

const FILLER_SENTENCE = 'This text stands in for an answer of Grok, and says the same thing every time it is asked. ';
let filler: string[] = [];

/** `count` tokens of the filler text, which starts over when it ends. */
export function fillerTokens(count: number): readonly string[] {
  if (filler.length < count) {
    const repeats = Math.ceil((count * BYTES_PER_TOKEN) / FILLER_SENTENCE.length) + 1;
    filler = splitTokens(FILLER_SENTENCE.repeat(repeats));
  }
  return filler.slice(0, count);
}
