import type { Assembly, CompletionAnswer } from './completion-answer.ts';
import type { GatewayError } from '../shared/gateway-error.ts';

/** An answer of which a copy is put together on the way, as the object that a plain answer is: for whoever asks again. */
export class KeptAnswer implements CompletionAnswer {
  #assembly: Assembly;

  constructor(
    private readonly answer: CompletionAnswer,
    private readonly newAssembly: () => Assembly,
  ) {
    this.#assembly = newAssembly();
  }

  get begun(): boolean {
    return this.answer.begun;
  }

  get written(): boolean {
    return this.answer.written;
  }

  restart(): void {
    this.#assembly = this.newAssembly();
    this.answer.restart();
  }

  write(bytes: Buffer): void {
    this.#assembly.push(bytes);
    this.answer.write(bytes);
  }

  /** All of it, once the provider has said all. Call once. */
  whole(tail: Buffer, usage: unknown): Buffer {
    this.#assembly.push(tail);
    return Buffer.from(JSON.stringify(this.#assembly.finish(usage)));
  }

  finish(tail: Buffer, headers: Readonly<Record<string, string>>, usage: unknown): void {
    this.answer.finish(tail, headers, usage);
  }

  fail(error: GatewayError): void {
    this.answer.fail(error);
  }

  abandon(): void {
    this.answer.abandon();
  }
}
