import { sign } from 'node:crypto';
import type { Env } from '../env.ts';
import { openCheckpoint, verifierKeys } from './checkpoint.ts';
import { formatVerifierKey, type VerifierKey } from './signed-note.ts';
import type { SigningKeys } from './signing-keys.ts';
import { latestCheckpoint, readHead, type Query } from './transparency-log.ts';

const PAYLOAD_TYPE = 'application/vnd.novix.evidence+json';
const CHECKPOINTS_MAX = 10_000;
const RECEIPTS_MAX = 1_000;
const DAY_MS = 86_400_000;

/**
 * A signed envelope (DSSE), by the two keys that sign the log.
 *
 * @see https://github.com/secure-systems-lab/dsse/blob/master/envelope.md
 */
export interface Envelope {
  payloadType: string;
  /** Base64. */
  payload: string;
  signatures: readonly { keyid: string; sig: string }[];
}

/**
 * What an assessor asks for, in one document: algorithms, keys and their ages, rotations, what was destroyed, the chain of checkpoints, the policies in
 * force, and how far the SIEM has everything. It is evidence for controls; it certifies nothing.
 */
export async function collectEvidence(query: Query, settings: Pick<Env, 'tls' | 'audit'>, keys: SigningKeys, nowMs: number): Promise<Record<string, unknown>> {
  const head = await readHead(query);
  const verifiers = verifierKeys(head.origin, keys);
  return {
    statement: 'Evidence for controls of this installation, as its own records show them. It is not a certification.',
    generated_at: new Date(nowMs).toISOString(),
    algorithms: {
      audit_tree: 'SHA-256 (RFC 6962)', checkpoint_signatures: ['Ed25519', 'ML-DSA-44'], commitments: 'HMAC-SHA256',
      payload_key_encapsulation: 'X25519 + ML-KEM-768, HKDF-SHA256', payload_encryption: 'AES-256-GCM',
      inbound_tls_groups: settings.tls === undefined ? 'TLS ends before this process' : settings.tls.groups.length === 0 ? 'the default of OpenSSL 3.5, X25519MLKEM768 first' : settings.tls.groups,
      upstream_tls_groups: 'in each outcome record, as attempts[].tlsGroup',
    },
    audit_log: { origin: head.origin, size: head.size, pruned_below: head.prunedBelow, leaf_retention_days: settings.audit.retentionDays ?? null, verifier_keys: verifiers.map(formatVerifierKey), ...(await checkpointChain(query, verifiers)) },
    keys: {
      commitment_keys: await one(query, 'SELECT count(*)::int AS count, min(created_at) AS oldest_at, max(created_at) AS newest_at FROM commitment_keys'),
      payload_epochs: withAges(await all(query, 'SELECT id, tenant_id AS tenant, root_keeper, created_at, retired_at, destroyed_at FROM payload_epochs ORDER BY created_at'), nowMs),
      payload_data_keys: await all(query, 'SELECT tenant_id AS tenant, count(*)::int AS count, min(day)::text AS oldest_day, max(day)::text AS newest_day FROM payload_data_keys GROUP BY 1 ORDER BY 1'),
    },
    shred_receipts: await receipts(query),
    retention_runs: await all(query, 'SELECT started_at, finished_at, complete, summary FROM retention_runs ORDER BY started_at DESC LIMIT 100'),
    policies: {
      revision: (await one(query, 'SELECT number::text AS revision FROM access_revision'))['revision'],
      stored: await all(query, 'SELECT id, tenant_id AS tenant, name, status, created_at, updated_at FROM policies ORDER BY created_at, id'),
    },
    siem_sinks: (await all(query, 'SELECT name, type, enabled, cursor::float8 AS cursor, parked::float8 AS parked, last_delivered_at FROM siem_sinks ORDER BY name')).map((sink) => ({ ...sink, lag_events: Math.max(0, head.size - Number(sink['cursor'])) })),
  };
}

export function signEvidence(evidence: Record<string, unknown>, origin: string, keys: SigningKeys): Envelope {
  const payload = Buffer.from(JSON.stringify(evidence));
  const [log, cosigner] = verifierKeys(origin, keys);
  const message = preAuthentication(payload);
  return {
    payloadType: PAYLOAD_TYPE, payload: payload.toString('base64'),
    signatures: [{ keyid: log.name, sig: sign(null, message, keys.ed25519.privateKey).toString('base64') }, { keyid: cosigner.name, sig: sign(null, message, keys.mlDsa44.privateKey).toString('base64') }],
  };
}

/** What DSSE signs. */
export function preAuthentication(payload: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload]);
}

/** All that are kept, each opened: one that is not good would be told as such by `novix audit verify`, and here nothing is signed over it. */
async function checkpointChain(query: Query, verifiers: readonly VerifierKey[]): Promise<Record<string, unknown>> {
  const { rows } = await query.query<{ note: string }>('SELECT note FROM audit_checkpoints ORDER BY size DESC LIMIT $1', [CHECKPOINTS_MAX]);
  const chain = rows.map(({ note }) => openCheckpoint(note, verifiers)).toReversed();
  return {
    checkpoints: chain.map(({ size, root, signedAtSeconds }) => ({ size, root: root.toString('base64'), signed_at: signedAtSeconds === undefined ? null : new Date(signedAtSeconds * 1000).toISOString() })),
    latest_checkpoint: (await latestCheckpoint(query))?.note ?? null,
  };
}

/** Records of what was destroyed, newest first, each with its place in the log, where it can be proved. */
async function receipts(query: Query): Promise<Record<string, unknown>[]> {
  const { rows } = await query.query<{ index: string; body: Buffer }>(
    `SELECT index, body FROM audit_leaves WHERE position('"operation":"retention"'::bytea IN body) > 0 ORDER BY index DESC LIMIT $1`, [RECEIPTS_MAX]);
  return rows.map(({ index, body }) => {
    const { time, unmapped: { novix } } = JSON.parse(body.toString()) as { time: number; unmapped: { novix: { object: unknown; before: unknown; after: unknown } } };
    return { index: Number(index), at: new Date(time).toISOString(), object: novix.object, before: novix.before, after: novix.after };
  });
}

function withAges(rows: readonly Record<string, unknown>[], nowMs: number): Record<string, unknown>[] {
  return rows.map((row) => ({ ...row, age_days: Math.floor((nowMs - (row['created_at'] as Date).getTime()) / DAY_MS) }));
}

async function all(query: Query, sql: string): Promise<Record<string, unknown>[]> {
  return (await query.query<Record<string, unknown>>(sql)).rows;
}

async function one(query: Query, sql: string): Promise<Record<string, unknown>> {
  return (await all(query, sql))[0]!;
}
