/**
 * What the participants made of one operation: 0 is fine, every other number is a participant's own (the ledger's are in `cost/ledger-entry.ts`).
 */
export type Verdict = number;

/**
 * The participants of a commit, as SQL functions `f(verdicts smallint[], entries json) returns smallint[]`, in the order in which they decide. Audit leaves
 * are longer than all else, and go beside the JSON: see `packed-leaves.ts`.
 */
export const PARTICIPANTS = ['idempotency_claim', 'ledger_apply', 'audit_append', 'stored_responses_apply', 'idempotency_finish'] as const;
export type Participant = (typeof PARTICIPANTS)[number];

/** Admissions are refused under load and given up early; outcomes of admitted calls never are; refusals use what room is left. */
export type Lane = 'admission' | 'outcome' | 'refusal';

/** What each participant shall write, as the text of a JSON object; that of `audit_append` has the leaf in a second line. */
export type Entries = Partial<Record<Participant, string>>;

/** One thing that commits as a whole. */
export interface Operation {
  /** UUID, for logs and for telling operations apart. */
  id: string;
  lane: Lane;
  entries: Entries;
  /** What to commit instead where the verdict is this one, with which nothing was written. */
  otherwise?: { verdict: Verdict; entries: () => Entries };
  /**
   * Called when the operation turns out to have committed after its caller was told that it had not: undo it by a further operation.
   */
  onCommittedAfterGivingUp?: () => void;
}

/** One batch's entries for a participant, as the text of a JSON array, each entry with its operation's place in the batch as `i`. */
export function entriesJson(operations: readonly Operation[], participant: Participant): string {
  let json = '';
  for (let i = 0; i < operations.length; i++) {
    const entry = operations[i]!.entries[participant];
    if (entry !== undefined) json += `${json === '' ? '' : ','}{"i":${i},${entry.slice(1)}`;
  }
  return `[${json}]`;
}
