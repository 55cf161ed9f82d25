import type { Client, Pool } from 'pg';
import { leafEntry } from '../../src/audit/audit-event.ts';
import { packLeaves } from '../../src/journal/packed-leaves.ts';

export interface NewLeaf {
  id: string;
  tenant?: string;
  requestId?: string;
  text: string;
}

/** Writes leaves as the journal does, in a commit of their own. */
export async function appendLeaves(db: Pick<Client | Pool, 'query'>, leaves: readonly NewLeaf[]): Promise<void> {
  const { heads, bodies } = packLeaves(leaves.map(({ id, tenant, requestId = '', text }) => leafEntry(id, { tenant, requestId }, text)));
  await db.query('SELECT audit_append(journal_open($1), $2, $3)', [leaves.length, heads, bodies]);
}
