import { createHash } from 'node:crypto';

/** Served load is remembered so long: an exponential window. */
const WINDOW_MS = 600_000;
const CONVERSATIONS_MAX = 10_000;
/** A conversation moves away from a shard that serves more than this times the mean. */
const KNOWN_BOUND = 1.25;
/** A new one goes where its hash says, unless that shard already serves more than this times the mean. */
const NEW_BOUND = 1.02;
/** Before so many calls, a share of them says nothing. */
const WARM_CALLS = 200;

interface Served {
  calls: number;
  tokens: number;
}

/**
 * Keeps conversations where the provider has their prefix cached.
 *
 * A new conversation goes to the first shard of its rendezvous order that does not serve more than its part; a known one stays, unless its shard has
 * become too popular. Load is what was served lately, not what is in flight: with few calls under way, noise would scatter the conversations.
 * Figures and alternatives: docs/decisions/0008-conversations-stay.md.
 */
export class ConversationPlacement {
  /** Least recently used first. */
  readonly #placed = new Map<string, string>();
  readonly #served = new Map<string, Served>();
  #decayedAtMs = 0;

  /** How many conversations are remembered. */
  get size(): number {
    return this.#placed.size;
  }

  /**
   * @param shards those that can take the call; at least one
   * @param inputTokens of the call, estimated
   * @param nowMs monotonic
   */
  place<T extends { id: string; weight: number }>(conversation: string, shards: readonly T[], inputTokens: number, nowMs: number): T {
    this.#decay(nowMs);
    const known = shards.find(({ id }) => id === this.#placed.get(conversation));
    const shares = this.#shares(shards);
    const stays = known !== undefined && (this.#calls < WARM_CALLS || shares.get(known.id)! <= KNOWN_BOUND);
    const chosen = stays ? known : this.#placeAnew(conversation, shards, shares);
    this.#placed.delete(conversation);
    if (this.#placed.size >= CONVERSATIONS_MAX) this.#placed.delete(this.#placed.keys().next().value!);
    this.#placed.set(conversation, chosen.id);
    const served = this.#served.get(chosen.id) ?? { calls: 0, tokens: 0 };
    this.#served.set(chosen.id, { calls: served.calls + 1, tokens: served.tokens + inputTokens });
    return chosen;
  }

  #placeAnew<T extends { id: string; weight: number }>(conversation: string, shards: readonly T[], shares: ReadonlyMap<string, number>): T {
    const order = rendezvousOrder(shards, conversation);
    const least = order.reduce((best, shard) => (shares.get(shard.id)! < shares.get(best.id)! ? shard : best));
    return order.find(({ id }) => shares.get(id)! <= NEW_BOUND) ?? least;
  }

  /** Each shard's load as a multiple of its part, 1 being exactly that; by calls or by tokens, whichever says more. */
  #shares(shards: readonly { id: string; weight: number }[]): Map<string, number> {
    const served = shards.map(({ id }) => this.#served.get(id) ?? { calls: 0, tokens: 0 });
    const sum = (read: (one: Served) => number): number => served.reduce((total, one) => total + read(one), 0);
    const [calls, tokens] = [sum((one) => one.calls), sum((one) => one.tokens)];
    const weights = shards.reduce((total, { weight }) => total + weight, 0);
    if (calls === 0) return new Map(shards.map(({ id }) => [id, 0]));
    return new Map(shards.map(({ id, weight }, index) => {
      const part = weight / weights;
      return [id, Math.max(served[index]!.calls / calls, served[index]!.tokens / Math.max(tokens, 1)) / part];
    }));
  }

  get #calls(): number {
    return [...this.#served.values()].reduce((sum, { calls }) => sum + calls, 0);
  }

  #decay(nowMs: number): void {
    const factor = Math.exp(-(nowMs - this.#decayedAtMs) / WINDOW_MS);
    this.#decayedAtMs = nowMs;
    for (const served of this.#served.values()) {
      served.calls *= factor;
      served.tokens *= factor;
    }
  }
}

/**
 * Shards in the order in which a conversation prefers them: the highest random weight first. Every replica gets the same order without talking to
 * another, and a shard that comes or goes moves only its own conversations.
 *
 * @see https://doi.org/10.1109/90.663936 (rendezvous hashing)
 */
export function rendezvousOrder<T extends { id: string; weight: number }>(shards: readonly T[], conversation: string): T[] {
  return shards
    .map((shard) => ({ shard, score: rendezvousScore(shard, conversation) }))
    .sort((left, right) => right.score - left.score)
    .map(({ shard }) => shard);
}

/** A uniform hash, bent by the weight: -w / ln u. */
function rendezvousScore({ id, weight }: { id: string; weight: number }, conversation: string): number {
  const hash = createHash('sha256').update(conversation).update('\0').update(id).digest().readUIntBE(0, 6);
  return -weight / Math.log((hash + 0.5) / 2 ** 48);
}
