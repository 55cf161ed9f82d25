import type { AccessRules } from '../auth/access-rules.ts';
import type { TokenVerifier } from '../auth/token-verifier.ts';
import type { Journal } from '../journal/journal.ts';
import type { Shards } from '../provider/shards.ts';

/** Whether this process should get traffic. The provider is no part of it: when it is down, callers are to be told so by us. */
export class Health {
  started = false;
  draining = false;

  constructor(
    private readonly journal: Pick<Journal, 'available'>,
    private readonly verifier: Pick<TokenVerifier, 'ready'>,
    private readonly rules: Pick<AccessRules, 'fresh'>,
    private readonly shards: Pick<Shards, 'unlocked'>,
  ) {}

  database(): boolean {
    return this.journal.available;
  }

  /** Whether the access rules are known to be current. */
  policies(): boolean {
    return this.rules.fresh;
  }

  /** Whether the provider's key is open. A single deployment's that is not keeps that one out of service, and not this process. */
  secrets(): boolean {
    return this.shards.unlocked;
  }

  identity(): Promise<boolean> {
    return this.verifier.ready();
  }
}
