import type { DataSource } from 'typeorm';
import type { AccessRules } from './access-rules.ts';
import type { CallAction, CallSubject, DecisionPoint, Policy, Verdict } from './decision-point.ts';
import type { Attributes } from './policy.ts';

/** Records looked at, at most: a dry run must not read the whole log. */
const SCANNED_MAX = 50_000;

/** A decision as its record has it. */
export interface RecordedDecision {
  id: string;
  tenantId: string;
  revision: string;
  allowed: boolean;
  policy: string | undefined;
  rule: string | undefined;
  at: string;
  requestId: string;
  reason: string | undefined;
  /** What all had to be allowed. */
  actions: readonly CallAction[];
  /** For each deployment that could have taken the call, what rules could ask about. */
  subjects: { modelNames: readonly string[]; attributes: Attributes }[];
}

/** Where a policy that is only tried would decide otherwise. */
export interface Flip {
  decision_id: string;
  from: 'allowed' | 'denied';
  to: 'allowed' | 'denied';
  rule: string | null;
}

interface Row {
  time: string;
  request_id: string;
  tenant: string;
  phase: string;
  decision: { id: string; revision: string; policy?: string; rule?: string; reason?: string; actions?: CallAction[]; attributes?: Attributes; deployments?: (Attributes & { models: readonly string[] })[] };
}

/** Reads decisions back from the audit log. */
export class RecordedDecisions {
  constructor(
    private readonly dataSource: DataSource,
    private readonly rules: AccessRules,
  ) {}

  /** @param tenantId whose decisions may be seen; undefined for all */
  async find(decisionId: string, tenantId: string | undefined): Promise<RecordedDecision | undefined> {
    const rows = await this.#read("position(convert_to($1, 'UTF8') IN l.body) > 0 AND coalesce(e.event->'unmapped'->'novix'->'cut_by', e.event->'unmapped'->'novix'->'decision')->>'id' = $1", [decisionId], tenantId, 1);
    return rows[0];
  }

  /** Evaluates a candidate against the latest decisions, newest first, and lists those that it would turn. */
  async dryRun(candidate: Policy & { id: string | undefined }, tenantId: string | undefined, last: number): Promise<{ evaluated: number; flips: Flip[] }> {
    const decisions = await this.#read("e.event->'unmapped'->'novix'->'decision'->'attributes' IS NOT NULL", [], tenantId, last);
    const points = new Map<string, ReturnType<AccessRules['pointWith']>>();
    const flips: Flip[] = [];
    for (const { id, tenantId: of, allowed, subjects, actions } of decisions) {
      let point = points.get(of);
      if (point === undefined) points.set(of, (point = this.rules.pointWith(of, candidate.id, { ...candidate, status: 'enforced' })));
      const verdicts = subjects.map((subject) => decideAll(point, actions, subject));
      const now = verdicts.some((verdict) => verdict.allowed);
      if (now !== allowed) {
        const { rule } = verdicts.find((verdict) => verdict.allowed === now) ?? { rule: undefined };
        flips.push({ decision_id: id, from: allowed ? 'allowed' : 'denied', to: now ? 'allowed' : 'denied', rule: rule ?? null });
      }
    }
    return { evaluated: decisions.length, flips };
  }

  async #read(condition: string, values: unknown[], tenantId: string | undefined, limit: number): Promise<RecordedDecision[]> {
    const rows = await this.dataSource.query<Row[]>(
      `SELECT e.event->>'time' AS time, e.event->'metadata'->>'correlation_uid' AS request_id, e.event->'metadata'->>'tenant_uid' AS tenant,
         e.event->'unmapped'->'novix'->>'phase' AS phase, coalesce(e.event->'unmapped'->'novix'->'cut_by', e.event->'unmapped'->'novix'->'decision') AS decision
       FROM (
         SELECT index, id, body FROM audit_leaves WHERE index >= (SELECT size - ${SCANNED_MAX} FROM audit_head)
         UNION ALL SELECT NULL, id, body FROM audit_pending
       ) l CROSS JOIN LATERAL (SELECT convert_from(l.body, 'UTF8')::json AS event) e
       WHERE ${condition} AND (e.event->'unmapped'->'novix'->>'phase' IN ('intent', 'refusal') OR e.event->'unmapped'->'novix'->'cut_by' IS NOT NULL)
         AND ($${values.length + 1}::text IS NULL OR e.event->'metadata'->>'tenant_uid' = $${values.length + 1})
       ORDER BY l.index DESC NULLS FIRST, l.id DESC LIMIT $${values.length + 2}`, [...values, tenantId ?? null, limit]);
    return rows.map(toDecision);
  }
}

/** All of them have to be allowed; the first that is not decides. */
function decideAll(point: DecisionPoint, actions: readonly CallAction[], subject: CallSubject): Verdict {
  const verdicts = actions.map((action) => point.decide(action, subject));
  return verdicts.find(({ allowed }) => !allowed) ?? verdicts[0]!;
}

function toDecision({ time, request_id: requestId, tenant, phase, decision }: Row): RecordedDecision {
  const { id, revision, policy, rule, reason, actions = ['invoke'], attributes = {}, deployments = [] } = decision;
  return {
    id, tenantId: tenant, revision, policy, rule, reason, actions, allowed: phase === 'intent', at: new Date(Number(time)).toISOString(), requestId,
    subjects: deployments.map(({ models, ...deployment }) => ({ modelNames: models, attributes: { ...attributes, ...deployment } })),
  };
}
