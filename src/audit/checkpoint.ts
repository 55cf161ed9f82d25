import { sign, verify } from 'node:crypto';
import { HASH_BYTES } from './merkle.ts';
import type { SigningKeys } from './signing-keys.ts';
import { ED25519, formatNote, parseNote, signatureOf, verifierKey, type VerifierKey } from './signed-note.ts';

// Checkpoints: what the log's operator says, with two signatures, that the log is.
// @see https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-cosignature

/** Far above any log, and far below where numbers become inexact. */
const SIZE_MAX = 2 ** 48;
const COSIGNATURE_LABEL = Buffer.from('subtree/v1\n\0');
const TIMESTAMP_BYTES = 8;

export interface TreeHead {
  /** The log's own name. */
  origin: string;
  /** Leaves. */
  size: number;
  root: Buffer;
}

export interface Checkpoint extends TreeHead {
  /** Seconds since 1970 by the cosignature; undefined without one. */
  signedAtSeconds: number | undefined;
}

/** The keys by which a log of this name is verified. The cosigner is another name beside the log's, as it is another key. */
export function verifierKeys(origin: string, { ed25519, mlDsa44 }: SigningKeys): readonly [log: VerifierKey, cosigner: VerifierKey] {
  return [verifierKey(origin, ed25519.publicKey), verifierKey(`${origin}/ml-dsa-44`, mlDsa44.publicKey)];
}

export function signCheckpoint(head: TreeHead, keys: SigningKeys, nowMs: number): string {
  const text = checkpointText(head);
  const [log, cosigner] = verifierKeys(head.origin, keys);
  const timestamp = uint64(Math.floor(nowMs / 1000));
  return formatNote({
    text,
    signatures: [
      { name: log.name, keyId: log.id, signature: sign(null, Buffer.from(text), keys.ed25519.privateKey) },
      { name: cosigner.name, keyId: cosigner.id, signature: Buffer.concat([timestamp, sign(null, cosignedMessage(head, cosigner.name, timestamp), keys.mlDsa44.privateKey)]) },
    ],
  });
}

/**
 * Opens a checkpoint whose log signature, and whose cosignature where that key is given, are good.
 *
 * @param keys one or both of a log's verifier keys; each of them must have signed
 * @throws {Error} saying what is wrong
 */
export function openCheckpoint(note: string, keys: readonly VerifierKey[]): Checkpoint {
  const signed = parseNote(note);
  const head = parseCheckpointText(signed.text);
  if (keys.length === 0) throw new Error('no key to check the checkpoint with');
  let signedAtSeconds: number | undefined;
  for (const key of keys) {
    const found = signatureOf(signed, key);
    if (found === undefined) throw new Error(`the checkpoint is not signed by ${key.name}`);
    const { signature } = found;
    if (key.type === ED25519) {
      // The line of a signature is not signed itself: a checkpoint of another log by the same key could be given this log's name there.
      if (head.origin !== key.name) throw new Error(`the checkpoint is one of ${head.origin}, not of ${key.name}`);
      if (!verify(null, Buffer.from(signed.text), key.publicKey, signature)) throw new Error(`the signature of ${key.name} is not good`);
    } else {
      const timestamp = signature.subarray(0, TIMESTAMP_BYTES);
      if (signature.length <= TIMESTAMP_BYTES || !verify(null, cosignedMessage(head, key.name, timestamp), key.publicKey, signature.subarray(TIMESTAMP_BYTES))) throw new Error(`the cosignature of ${key.name} is not good`);
      signedAtSeconds = Number(timestamp.readBigUInt64BE());
    }
  }
  return { ...head, signedAtSeconds };
}

function checkpointText({ origin, size, root }: TreeHead): string {
  return `${origin}\n${size}\n${root.toString('base64')}\n`;
}

/** @throws {Error} for what is no checkpoint */
export function parseCheckpointText(text: string): TreeHead {
  const [origin = '', size = '', encoded = ''] = text.split('\n');
  const root = Buffer.from(encoded, 'base64');
  if (origin === '' || !/^(0|[1-9]\d{0,15})$/.test(size) || Number(size) > SIZE_MAX || root.length !== HASH_BYTES || root.toString('base64') !== encoded) throw new Error('this is no checkpoint');
  return { origin, size: Number(size), root };
}

/** What the cosigner signs: the tree from its first leaf to its last. */
function cosignedMessage({ origin, size, root }: TreeHead, cosigner: string, timestamp: Buffer): Buffer {
  return Buffer.concat([COSIGNATURE_LABEL, withLength(cosigner), timestamp, withLength(origin), uint64(0), uint64(size), root]);
}

function withLength(text: string): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length === 0 || bytes.length > 255) throw new Error('a name in a cosignature has 1 to 255 bytes');
  return Buffer.concat([Buffer.of(bytes.length), bytes]);
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}
