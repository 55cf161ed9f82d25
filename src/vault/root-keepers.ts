import type { EpochRoots } from './epoch-roots.ts';

export type Keeper = 'file' | 'vault';

/** Who keeps roots: each epoch's stays where it was made, whoever keeps those of new epochs now. */
export class RootKeepers {
  constructor(
    private readonly keepers: Partial<Record<Keeper, EpochRoots>>,
    /** Of new epochs. */
    readonly newest: Keeper,
  ) {}

  /** @throws {Error} where that keeper is not set up any more: then nothing of its epochs may pass for destroyed */
  of(keeper: Keeper): EpochRoots {
    const roots = this.keepers[keeper];
    if (roots === undefined) throw new Error('the roots of some payload keys are kept by Vault, and VAULT_ADDR is not set');
    return roots;
  }
}
