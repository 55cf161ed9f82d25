import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { DataSource } from 'typeorm';
import type { Tiers } from '../catalogue/tiers.ts';
import { StoredPayloads } from '../completions/stored-payload.ts';
import type { Env } from '../env.ts';
import type { Clock } from '../shared/clock.ts';
import { createPool } from '../shared/database.ts';
import { hideFromLog } from '../shared/logger.ts';
import { DataKeys } from './data-keys.ts';
import { Epochs } from './epochs.ts';
import { FileRoots } from './file-roots.ts';
import { PayloadMetrics } from './payload-metrics.ts';
import { PayloadRetention } from './payload-retention.ts';
import { PayloadVault } from './payload-vault.ts';
import { Retention, type RetentionStep } from './retention.ts';
import { RootKeepers } from './root-keepers.ts';
import { RootPlace } from './root-place.ts';
import { VaultRequests } from './vault-requests.ts';
import { VaultRoots } from './vault-roots.ts';

export interface VaultParts {
  storedPayloads: StoredPayloads;
  payloadVault: PayloadVault;
  epochs: Epochs;
  retention: Retention;
  close(): Promise<void>;
}

export interface VaultNeeds {
  settings: Pick<Env, 'payloadRoots' | 'vault'> & { databaseUrl: string };
  dataSource: DataSource;
  tiers: Tiers;
  /** What else ends with time, beside payloads. */
  furtherSteps: readonly RetentionStep[];
  clock: Clock;
  random: () => number;
  logger: Logger;
  registry: Registry;
}

/** Brings up what stores prompts and answers, and what ends them. */
export function openVault({ settings, dataSource, tiers, furtherSteps, clock, random, logger, registry }: VaultNeeds): VaultParts {
  const { payloadRoots, vault: vaultSettings } = settings;
  const requests = vaultSettings === undefined ? undefined : new VaultRequests(vaultSettings, { clock, random, onToken: hideFromLog, onNotice: (text) => logger.warn(text) });
  // Its own: long texts on their way must not keep the heartbeat waiting.
  const pool = createPool(settings.databaseUrl, logger);
  const roots = new RootKeepers({
    file: new FileRoots(payloadRoots.folder, new RootPlace(pool, 'file')),
    ...(requests === undefined ? {} : { vault: new VaultRoots((...args) => requests.ask(...args), new RootPlace(pool, 'vault'), vaultSettings!.transitMount) }),
  }, payloadRoots.keeper);
  const epochs = new Epochs(pool, dataSource, roots, clock);
  const dataKeys = new DataKeys(pool, epochs, clock);
  dataKeys.start();
  const payloadVault = new PayloadVault(pool, dataKeys, epochs, clock);
  const retention = new Retention(pool, [new PayloadRetention(pool, dataSource, epochs, tiers, logger), ...furtherSteps], clock, logger, registry);
  retention.start();
  return {
    payloadVault, epochs, retention, storedPayloads: new StoredPayloads(payloadVault, new PayloadMetrics(registry), logger),
    close: async () => {
      await retention.close();
      dataKeys.close();
      await pool.end();
      await requests?.close();
    },
  };
}
