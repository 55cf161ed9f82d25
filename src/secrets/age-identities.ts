import { readFileSync, statSync } from 'node:fs';

const FILE_BYTES_MAX = 64 * 1024;
const IDENTITIES_MAX = 16;
const HYBRID = /^AGE-SECRET-KEY-PQ-1[0-9A-Z]+$/i;
const HOW_TO_MAKE = 'make one with "npx novix secret age-identity --out FILE"';

/**
 * The identities of an age identity file: one a line, with empty lines and comments (#) between. The first one seals, all of them open, so that
 * identities can be changed one after the other.
 *
 * @throws {Error} with one line that shows nothing of the file
 */
export function parseIdentities(text: string): readonly [string, ...string[]] {
  const lines = text.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
  for (const line of lines) {
    if (HYBRID.test(line)) continue;
    // What is sealed today is to stay secret for decades, so not with a key that a quantum computer finds.
    if (/^AGE-SECRET-KEY-1/i.test(line)) throw new Error(`AGE_IDENTITY_FILE: holds an X25519 identity, which is not post-quantum; ${HOW_TO_MAKE}, or with "age-keygen -pq"`);
    throw new Error(`AGE_IDENTITY_FILE: has a line that is neither a post-quantum identity (AGE-SECRET-KEY-PQ-1…) nor a comment; ${HOW_TO_MAKE}`);
  }
  const [first, ...others] = lines;
  if (first === undefined) throw new Error(`AGE_IDENTITY_FILE: holds no identity; ${HOW_TO_MAKE}`);
  if (lines.length > IDENTITIES_MAX) throw new Error(`AGE_IDENTITY_FILE: holds more than ${IDENTITIES_MAX} identities`);
  return [first, ...others];
}

export function readIdentities(path: string): readonly [string, ...string[]] {
  let text: string;
  try {
    const stat = statSync(path);
    if (!stat.isFile() || stat.size > FILE_BYTES_MAX) throw new Error('no identity file');
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new Error(`AGE_IDENTITY_FILE: ${path} cannot be read, or is no identity file`, { cause });
  }
  return parseIdentities(text);
}
