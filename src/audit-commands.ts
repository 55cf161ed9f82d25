import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { Client } from 'pg';
import { CheckpointFile } from './audit/checkpoint-file.ts';
import { verifierKeys } from './audit/checkpoint.ts';
import { collectEvidence, signEvidence, type Envelope } from './audit/evidence.ts';
import type { LogReport } from './audit/log-faults.ts';
import { parseVerifierKey, type VerifierKey } from './audit/signed-note.ts';
import { openSigningKeys } from './audit/signing-keys.ts';
import { proveInclusion, PrunedError, readHead } from './audit/transparency-log.ts';
import { verifyDatabase } from './audit/verify-database.ts';
import { remoteKeys, verifyRemote } from './audit/verify-remote.ts';
import { withDatabase } from './database-commands.ts';
import type { Env } from './env.ts';

export interface VerifyOptions {
  url?: string;
  token?: string;
  /** File of verifier keys, one a line. */
  key?: string;
  /** File of a checkpoint that was kept from before. */
  checkpoint?: string;
}

export interface Verification extends LogReport {
  /** Where the keys are from: a log that is verified by what it says itself proves little. */
  keys: 'pinned' | 'signing key file' | 'told by the log itself';
  seconds: number;
}

/** `novix audit verify`, of a gateway where a URL is given, else of the database. */
export async function verifyAudit(options: VerifyOptions): Promise<Verification> {
  const startedMs = performance.now();
  const pinned = options.key === undefined ? undefined : readKeys(readText(options.key, '--key'));
  const older = options.checkpoint === undefined ? undefined : readText(options.checkpoint, '--checkpoint');
  const { report, keys } = options.url === undefined ? await verifyOwn(pinned, older, options.checkpoint) : await verifyByUrl(options.url, options.token, pinned, older);
  return { ...report, keys, seconds: Math.round(performance.now() - startedMs) / 1000 };
}

/** `novix audit prove`. Returns the proof. */
export async function proveAudit(index: number, out: string | undefined): Promise<string> {
  const proof = await withDatabase((url) => withClient(url, async (client) => {
    try {
      return await proveInclusion(client, index);
    } catch (error) {
      throw error instanceof PrunedError ? new Error(`leaf ${index} was pruned by policy`, { cause: error }) : error;
    }
  }));
  if (proof === undefined) throw new Error(`there is no leaf ${index} in the last signed checkpoint`);
  if (out !== undefined) writeFileSync(out, proof);
  return proof;
}

/** `novix evidence export`. Returns the signed envelope. */
export async function exportEvidence(): Promise<Envelope> {
  return withDatabase((url, env) => withClient(url, async (client) => {
    const path = env.audit.signingKeyFile;
    if (path === undefined || !existsSync(path)) throw new Error('AUDIT_SIGNING_KEY_FILE: evidence is signed with the keys of the audit log; set it');
    const keys = openSigningKeys(path, false);
    return signEvidence(await collectEvidence(client, env, keys, Date.now()), (await readHead(client)).origin, keys);
  }));
}

async function verifyOwn(pinned: readonly VerifierKey[] | undefined, older: string | undefined, olderPath: string | undefined): Promise<{ report: LogReport; keys: Verification['keys'] }> {
  return withDatabase((url, env) => withClient(url, async (client) => {
    const keys = pinned ?? (await ownKeys(client, env));
    const kept = await new CheckpointFile(env.audit.checkpointFile).read();
    const outside = [...(kept === undefined ? [] : [{ place: env.audit.checkpointFile, note: kept }]), ...(older === undefined ? [] : [{ place: olderPath!, note: older }])];
    return { report: await verifyDatabase(client, keys, outside, progress()), keys: pinned === undefined ? 'signing key file' as const : 'pinned' as const };
  }));
}

async function ownKeys(client: Client, env: Env): Promise<readonly VerifierKey[]> {
  const path = env.audit.signingKeyFile;
  if (path === undefined || !existsSync(path)) throw new Error('give the log’s verifier keys by --key FILE (GET /audit/v1/keys tells them), or AUDIT_SIGNING_KEY_FILE');
  return verifierKeys((await readHead(client)).origin, openSigningKeys(path, false));
}

async function verifyByUrl(url: string, token: string | undefined, pinned: readonly VerifierKey[] | undefined, older: string | undefined): Promise<{ report: LogReport; keys: Verification['keys'] }> {
  if (token === undefined) throw new Error('--url takes --token, of somebody with the role auditor');
  if (!URL.canParse(url)) throw new Error('--url takes the gateway’s address, such as https://gateway.example');
  const log = { url: new URL(url).origin, token };
  const keys = pinned ?? readKeys(await remoteKeys(log));
  return { report: await verifyRemote(log, keys, older, progress()), keys: pinned === undefined ? 'told by the log itself' : 'pinned' };
}

function readKeys(text: string): VerifierKey[] {
  const lines = text.split('\n').map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
  if (lines.length === 0) throw new Error('--key: the file has no verifier key');
  return lines.map(parseVerifierKey);
}

function readText(path: string, option: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new Error(`${option}: ${path} cannot be read`, { cause });
  }
}

async function withClient<T>(url: string, use: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url, application_name: 'novix-audit' });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

/** To people only: output that is piped stays clean. */
function progress(): (leaves: number, of: number) => void {
  if (!process.stderr.isTTY) return () => {};
  let shownAtMs = 0;
  return (leaves, of) => {
    const nowMs = performance.now();
    if (nowMs - shownAtMs < 200 && leaves < of) return;
    shownAtMs = nowMs;
    process.stderr.write(`\r${leaves} of ${of} leaves${leaves < of ? '' : '\n'}`);
  };
}
