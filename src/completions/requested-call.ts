import type { FastifyReply } from 'fastify';
import type { Model } from '../catalogue/catalogue.ts';
import type { Candidate, CostFacts, Plan } from '../cost/plan.ts';
import type { AnswerReader } from '../provider/answer-reader.ts';
import type { UpstreamRequest } from '../provider/grok-client.ts';
import type { Assembly, CompletionAnswer, Flow } from './completion-answer.ts';
import type { Opening } from './conversation.ts';
import type { StoredChange } from './stored-responses.ts';

/**
 * A call as its endpoint understood it: all that differs from one endpoint to another. Whatever is asked for, the rest of a call's life is the same;
 * there is no way around it.
 */
export interface RequestedCall {
  /** The caller's bytes, to which the record commits. */
  readonly body: Buffer;
  /** The same but for the form of the answer, plain or streamed: what makes two requests one. */
  readonly identity: Buffer;
  /** Model id or alias; undefined for the default model. */
  readonly model: string | undefined;
  readonly stream: boolean;
  /** What it needs of a model, for policies. */
  readonly capabilities: readonly string[];
  /** Whether the provider shall keep the answer: as the caller said, or left to the policy. */
  readonly storage: 'required' | 'if_allowed' | 'none';
  /** The one deployment that can take it, since it keeps what the call refers to; undefined for any. */
  readonly deployment: string | undefined;
  /** What is asked, for the cost engine to look at; undefined where it has no choice. */
  readonly question: string | undefined;
  /** What names the conversation; undefined where there is none. */
  readonly opening: Opening | undefined;
  /**
   * What of it decides its cost.
   *
   * @throws {GatewayError} `unsupported_parameter` for what the model refuses, and for what has no price ceiling
   */
  costFacts(model: Model): CostFacts;
  /** What goes to the provider. */
  upstream(plan: Plan, candidate: Candidate, conversation: string | undefined, store: boolean): Omit<UpstreamRequest, 'conversationId'>;
  reader(plan: Plan): AnswerReader;
  answer(reply: FastifyReply, flow: Flow, headers: () => Readonly<Record<string, string>>): CompletionAnswer;
  /** Puts the frames of an answer together into the object that a plain answer is. */
  assembly(): Assembly;
  /** The same object as a stream, for a repeat that asks for one. */
  asStream(whole: Record<string, unknown>): Buffer;
  /** What a whole answer changes of what the provider keeps; undefined for nothing. */
  stored(reader: AnswerReader, candidate: Candidate): StoredChange | undefined;
  /** The same where the provider knows nothing of what the call is about. */
  gone?(): StoredChange;
}
