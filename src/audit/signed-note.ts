import { createPublicKey, hash, type KeyObject } from 'node:crypto';

// Signed notes and their verifier keys.
// @see https://c2sp.org/signed-note

/** Signature types: of a log, and of a cosigner that is safe from quantum computers. */
export const ED25519 = 0x01;
export const ML_DSA_44 = 0x06;
export type SignatureType = typeof ED25519 | typeof ML_DSA_44;

const KEY_ID_BYTES = 4;
const SIGNATURES_MAX = 16;
/** DER that stands before the raw key in a SubjectPublicKeyInfo, and the length of that key. */
const PUBLIC_KEYS: Record<SignatureType, { name: string; prefix: Buffer; bytes: number }> = {
  [ED25519]: { name: 'ed25519', prefix: Buffer.from('302a300506032b6570032100', 'hex'), bytes: 32 },
  [ML_DSA_44]: { name: 'ml-dsa-44', prefix: Buffer.from('30820532300b06096086480165030403110382052100', 'hex'), bytes: 1312 },
};

/** Who signs: a name without spaces and plus signs, and a public key. */
export interface VerifierKey {
  name: string;
  type: SignatureType;
  /** First four bytes of a hash over name, type and key. */
  id: Buffer;
  publicKey: KeyObject;
}

export interface NoteSignature {
  name: string;
  keyId: Buffer;
  /** What stands after the key id. */
  signature: Buffer;
}

export interface SignedNote {
  /** With the line break at its end. */
  text: string;
  signatures: readonly NoteSignature[];
}

/** @throws {Error} for a key of another type, or a name that a note cannot hold */
export function verifierKey(name: string, publicKey: KeyObject): VerifierKey {
  if (!/^[^\s+]+$/u.test(name)) throw new Error('the name of a log’s key has neither spaces nor plus signs');
  const type = publicKey.asymmetricKeyType === 'ed25519' ? ED25519 : publicKey.asymmetricKeyType === 'ml-dsa-44' ? ML_DSA_44 : undefined;
  if (type === undefined) throw new Error(`a log is signed by Ed25519 and ML-DSA-44, not by ${publicKey.asymmetricKeyType}`);
  return { name, type, publicKey, id: keyId(name, type, rawKey(type, publicKey)) };
}

/** A verifier key in one line, `<name>+<key id>+<type and key in base64>`. */
export function formatVerifierKey({ name, type, id, publicKey }: VerifierKey): string {
  return `${name}+${id.toString('hex')}+${Buffer.concat([Buffer.of(type), rawKey(type, publicKey)]).toString('base64')}`;
}

/** @throws {Error} for what is no verifier key */
export function parseVerifierKey(line: string): VerifierKey {
  const [, name, id, encoded] = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})$/.exec(line) ?? [];
  if (name === undefined || id === undefined || encoded === undefined) throw new Error('this is no verifier key (<name>+<id>+<key>)');
  const bytes = Buffer.from(encoded, 'base64');
  const type = bytes[0] as SignatureType;
  const known = PUBLIC_KEYS[type];
  if (known === undefined || bytes.length !== known.bytes + 1) throw new Error(`the verifier key of ${name} is of a type that is not known here`);
  const raw = bytes.subarray(1);
  if (keyId(name, type, raw).toString('hex') !== id) throw new Error(`the verifier key of ${name} has an id that is not its own`);
  return { name, type, id: Buffer.from(id, 'hex'), publicKey: createPublicKey({ key: Buffer.concat([known.prefix, raw]), format: 'der', type: 'spki' }) };
}

export function formatNote({ text, signatures }: SignedNote): string {
  return `${text}\n${signatures.map(({ name, keyId: id, signature }) => `\u2014 ${name} ${Buffer.concat([id, signature]).toString('base64')}\n`).join('')}`;
}

/** @throws {Error} for what is no signed note */
export function parseNote(note: string): SignedNote {
  const end = note.lastIndexOf('\n\n');
  if (end < 0 || !note.endsWith('\n') || /[\p{Cc}--\n]/v.test(note)) throw new Error('this is no signed note');
  const lines = note.slice(end + 2, -1).split('\n');
  if (lines.length > SIGNATURES_MAX) throw new Error(`a note has at most ${SIGNATURES_MAX} signatures here`);
  const signatures = lines.map((line): NoteSignature => {
    const [, name, encoded] = /^\u2014 ([^\s+]+) ((?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)$/u.exec(line) ?? [];
    const bytes = Buffer.from(encoded ?? '', 'base64');
    if (name === undefined || bytes.length <= KEY_ID_BYTES || bytes.toString('base64') !== encoded) throw new Error('a signature line of the note is damaged');
    return { name, keyId: bytes.subarray(0, KEY_ID_BYTES), signature: bytes.subarray(KEY_ID_BYTES) };
  });
  return { text: note.slice(0, end + 1), signatures };
}

/** The signature that claims to be a key's; whether it is, is yet to be checked. */
export function signatureOf({ signatures }: SignedNote, key: VerifierKey): NoteSignature | undefined {
  return signatures.find(({ name, keyId: id }) => name === key.name && id.equals(key.id));
}

function keyId(name: string, type: SignatureType, raw: Buffer): Buffer {
  return hash('sha256', Buffer.concat([Buffer.from(`${name}\n`), Buffer.of(type), raw]), 'buffer').subarray(0, KEY_ID_BYTES);
}

function rawKey(type: SignatureType, publicKey: KeyObject): Buffer {
  const { prefix, bytes } = PUBLIC_KEYS[type];
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  if (spki.length !== prefix.length + bytes || !spki.subarray(0, prefix.length).equals(prefix)) throw new Error('a public key is not encoded as expected');
  return spki.subarray(prefix.length);
}
