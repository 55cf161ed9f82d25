import type { Logger } from 'pino';
import { isSealed, SecretUnavailable, type SecretProvider } from './secret-provider.ts';

const RETRY_MS = 500;
const RETRY_MAX_MS = 5_000;

/** A value that may be sealed, and the name it is sealed for. */
export interface NamedValue {
  name: string;
  value: string;
}

type State = { kind: 'waiting' } | { kind: 'open'; value: string } | { kind: 'refused'; error: Error };

/**
 * The secrets that calls need, opened. What cannot be opened yet, since Vault is sealed or away, is tried again until it can: nobody has to restart
 * anything.
 */
export class OpenedSecrets {
  readonly #states = new Map<string, { of: NamedValue; state: State }>();
  readonly #listeners: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  #saidReason: string | undefined;
  #closed = false;

  /** @param always those that are needed whatever else is */
  constructor(
    private readonly secrets: Pick<SecretProvider, 'open'>,
    private readonly always: readonly NamedValue[],
    private readonly random: () => number,
    private readonly logger: Logger,
  ) {}

  /** From now on these are needed, and no others. Resolves when each new one has been tried once. */
  async need(values: readonly NamedValue[]): Promise<void> {
    const wanted = new Map([...this.always, ...values].filter(({ value }) => isSealed(value)).map((one) => [keyOf(one), one]));
    for (const key of this.#states.keys()) if (!wanted.has(key)) this.#states.delete(key);
    const fresh = [...wanted].filter(([key]) => !this.#states.has(key));
    for (const [key, of] of fresh) this.#states.set(key, { of, state: { kind: 'waiting' } });
    await Promise.all(fresh.map(([key]) => this.#try(key)));
    this.#tryAgainLater();
  }

  /**
   * @returns a plain value as it is; undefined for a sealed one as long as it is not open
   * @throws {Error} for one that will never open
   */
  read(name: string, value: string): string | undefined {
    const state = this.#states.get(keyOf({ name, value }))?.state;
    if (state?.kind === 'refused') throw state.error;
    return this.current(name, value);
  }

  /** The same, for who only wants to know what there is: undefined also for one that will never open. */
  current(name: string, value: string): string | undefined {
    if (!isSealed(value)) return value;
    const state = this.#states.get(keyOf({ name, value }))?.state;
    return state?.kind === 'open' ? state.value : undefined;
  }

  /** @param listener called when something has opened that was waited for */
  onOpen(listener: () => void): void {
    this.#listeners.push(listener);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  get #waiting(): string[] {
    return [...this.#states].filter(([, { state }]) => state.kind === 'waiting').map(([key]) => key);
  }

  async #try(key: string): Promise<void> {
    const entry = this.#states.get(key);
    if (entry === undefined) return; // no longer needed
    try {
      entry.state = { kind: 'open', value: await this.secrets.open(entry.of.name, entry.of.value) };
    } catch (error) {
      if (error instanceof SecretUnavailable) this.#say(error.message);
      else entry.state = { kind: 'refused', error: error instanceof Error ? error : new Error(String(error)) };
    }
  }

  /** Of one that was waited for. */
  async #tryLate(key: string): Promise<void> {
    await this.#try(key);
    const state = this.#states.get(key)?.state;
    if (state?.kind === 'refused' && !this.#closed) this.logger.error(`secrets: ${state.error.message}`);
  }

  #tryAgainLater(): void {
    clearTimeout(this.#timer);
    if (this.#closed || this.#waiting.length === 0) return;
    const ceilingMs = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** Math.min(this.#failures, 16));
    this.#timer = setTimeout(() => void this.#tryAgain(), ceilingMs / 2 + (ceilingMs / 2) * this.random());
  }

  /** One first: while Vault is away, it is not asked for all of them. */
  async #tryAgain(): Promise<void> {
    const [first, ...others] = this.#waiting;
    if (first === undefined) return;
    await this.#tryLate(first);
    if (this.#states.get(first)?.state.kind === 'waiting') {
      this.#failures += 1;
    } else {
      this.#failures = 0;
      await Promise.all(others.map((key) => this.#tryLate(key)));
      if (this.#closed) return;
      for (const listener of this.#listeners) listener();
      if (this.#waiting.length === 0) this.#say(undefined);
    }
    this.#tryAgainLater();
  }

  /** One line for each reason, and not one for each attempt. */
  #say(reason: string | undefined): void {
    if (reason === this.#saidReason || this.#closed) return;
    this.#saidReason = reason;
    if (reason === undefined) this.logger.info('secrets: nothing is waited for any more');
    else this.logger.warn(`secrets: ${reason}; it is tried again until it opens`);
  }
}

function keyOf({ name, value }: NamedValue): string {
  return `${name}\0${value}`;
}
