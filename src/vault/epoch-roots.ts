/** Which epoch's private half it is: it opens as this one alone. */
export interface EpochName {
  id: string;
  tenantId: string;
}

/**
 * Keeps what opens the private halves of epochs, outside PostgreSQL: a backup of the database has them sealed, and once a root is destroyed, no backup of it
 * opens any more. Two kinds of keeper: {@link FileRoots} and {@link VaultRoots}. This is also the place for keys that a customer holds: an implementation
 * that asks the customer's key service, whose refusal closes all that is stored.
 */
export interface EpochRoots {
  /** Makes the epoch's root, and seals with it. Once for each epoch. */
  seal(epoch: EpochName, bytes: Buffer): Promise<Buffer>;
  /**
   * @throws {RootGone} where the root is destroyed, or was never here
   * @throws {CannotOpen} where what is sealed is not what was sealed
   */
  open(epoch: EpochName, sealed: Buffer): Promise<Buffer>;
  /** For good. That there is none any more is no error, so that it can be done again after a crash. */
  destroy(epochId: string): Promise<void>;
}

export class RootGone extends Error {
  override readonly name = 'RootGone';
  constructor(epochId: string) {
    super(`the root of the payload key epoch ${epochId} is gone`);
  }
}
