import { Type, type Static } from 'typebox';
import { readConfigFile } from '../shared/config-files.ts';

const TierFacts = Type.Object({
  requests_per_minute: Type.Integer({ minimum: 1 }),
  tokens_per_minute: Type.Integer({ minimum: 1 }),
  concurrent_calls: Type.Integer({ minimum: 1 }),
  availability_objective_percent: Type.Number(),
  payload_retention_days: Type.Integer({ minimum: 1 }),
  evidence: Type.String(),
  dedicated_accelerators: Type.Boolean(),
  tls_groups: Type.Union([Type.Literal('any'), Type.Literal('hybrid')]),
}, { additionalProperties: false });
const TiersFile = Type.Object({
  tiers: Type.Object({ standard: TierFacts, enterprise: TierFacts, government: TierFacts }, { additionalProperties: false }),
}, { additionalProperties: false });

export type TierName = keyof Static<typeof TiersFile>['tiers'];
export type Tiers = Readonly<Record<TierName, Static<typeof TierFacts>>>;
export const TIER_NAMES = ['standard', 'enterprise', 'government'] as const satisfies readonly TierName[];

export function loadTiers(folder?: string): Tiers {
  return readConfigFile('tiers.yaml', TiersFile, folder).tiers;
}

/** Injection token of the {@link Tiers}. */
export const TIERS = Symbol('tiers');
