import { DecisionPoint, type Policy } from './auth/decision-point.ts';
import { PoliciesFile, policyRevision } from './auth/policy.ts';
import { loadCatalogue, type Catalogue } from './catalogue/catalogue.ts';
import { loadTiers, type Tiers } from './catalogue/tiers.ts';
import { ComplexityFile, type ComplexityWeights } from './cost/complexity.ts';
import type { Env } from './env.ts';
import { readConfigFile } from './shared/config-files.ts';

/** The reviewed files of `config/`, read, checked and compiled. */
export interface ConfigFiles {
  catalogue: Catalogue;
  tiers: Tiers;
  policies: readonly Policy[];
  policyRevision: string;
  complexity: ComplexityWeights;
}

/**
 * Reads all files of `config/`, and checks them against each other and the settings.
 *
 * @throws {Error} naming file and fault
 */
export function checkConfigFiles(env: Env): ConfigFiles {
  const catalogue = loadCatalogue(env.configDir);
  if (!catalogue.resolve(env.defaults.model)) throw new Error(`XAI_MODEL: config/models.yaml has no model ${env.defaults.model}`);
  const policies = readConfigFile('policies.yaml', PoliciesFile, env.configDir);
  new DecisionPoint('check', policies.policies); // says what does not fit, before anything has started
  return { catalogue, tiers: loadTiers(env.configDir), policies: policies.policies, policyRevision: policyRevision(policies), complexity: readConfigFile('complexity.yaml', ComplexityFile, env.configDir) };
}
