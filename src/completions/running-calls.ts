import type { Logger } from 'pino';
import { asGatewayError, type GatewayError } from '../shared/gateway-error.ts';

/** Calls looked at before others get their turn. */
const RECHECKED_AT_ONCE = 100;

export interface RunningCall {
  /** @throws {GatewayError} where the call would not be let in now */
  recheck(): void;
  /** Ends it; it is settled and recorded as any other. */
  cut(error: GatewayError): void;
}

/** Calls under way, so that a change of the rules reaches those that began before it. As many as were admitted, and no more. */
export class RunningCalls {
  readonly #calls = new Set<RunningCall>();

  constructor(private readonly logger: Logger) {}

  /** @returns to be called when the call has ended */
  add(call: RunningCall): () => void {
    this.#calls.add(call);
    return () => {
      this.#calls.delete(call);
    };
  }

  /** Lets every call that is under way now be decided again. */
  async recheck(): Promise<void> {
    let looked = 0;
    for (const call of this.#calls) {
      this.#recheck(call);
      looked += 1;
      if (looked % RECHECKED_AT_ONCE === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #recheck(call: RunningCall): void {
    try {
      call.recheck();
    } catch (error) {
      const failure = asGatewayError(error);
      this.logger.info({ code: failure.code, decisionId: failure.decision?.id }, 'a call under way is cut: it would not be let in now');
      call.cut(failure);
    }
  }
}
