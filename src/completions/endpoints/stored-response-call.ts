import type { FastifyReply } from 'fastify';
import { NO_COST, type CostFacts } from '../../cost/plan.ts';
import type { AnswerReader } from '../../provider/answer-reader.ts';
import type { UpstreamRequest } from '../../provider/grok-client.ts';
import { FREE_OF_CHARGE } from '../../provider/grok-usage.ts';
import { JsonAnswerReader } from '../../provider/json-answer.ts';
import { JsonAnswer, JsonWhole, type CompletionAnswer } from '../completion-answer.ts';
import type { RequestedCall } from '../requested-call.ts';
import type { StoredChange, StoredResponse } from '../stored-responses.ts';

/** Reading or deleting what the provider keeps: free, and decided, recorded and sent like any other call. */
export class StoredResponseCall implements RequestedCall {
  readonly body = Buffer.alloc(0);
  readonly identity: Buffer;
  readonly stream = false;
  readonly capabilities = ['text'];
  readonly storage = 'none';
  readonly opening = undefined;
  readonly question = undefined;

  constructor(
    private readonly response: StoredResponse,
    private readonly request: { method: 'GET' | 'DELETE'; path: string },
  ) {
    this.identity = Buffer.from(request.path);
  }

  get model(): string {
    return this.response.model;
  }

  get deployment(): string {
    return this.response.deployment;
  }

  costFacts(): CostFacts {
    return NO_COST;
  }

  upstream(): Omit<UpstreamRequest, 'conversationId'> {
    return { ...this.request, body: undefined, accept: 'json' };
  }

  reader(): AnswerReader {
    return new JsonAnswerReader((answer) => typeof answer['object'] === 'string' && (answer['object'] === 'response' || (answer['error'] ?? null) === null), () => FREE_OF_CHARGE);
  }

  answer(reply: FastifyReply): CompletionAnswer {
    return new JsonAnswer(reply);
  }

  assembly(): JsonWhole {
    return new JsonWhole();
  }

  asStream(): never {
    throw new Error('this endpoint has no streams');
  }

  stored(): StoredChange | undefined {
    return this.request.method === 'DELETE' ? this.gone() : undefined;
  }

  gone(): StoredChange {
    return { kind: 'forget', id: this.response.id };
  }
}
