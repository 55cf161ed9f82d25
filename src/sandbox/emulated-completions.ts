import { planAnswer, type EmulatedAnswer } from './emulated-answer.ts';
import type { Generation, Work } from './emulated-call.ts';
import { chatUsage } from './emulated-chat.ts';
import { textCost } from './emulated-cost.ts';
import { noPrompt, notOnCompletions, promptTooLong, unknownModel } from './emulated-errors.ts';
import { systemFingerprint } from './emulated-models.ts';
import { checkParameters, OUTPUT_TOKENS_DEFAULT, type ChatRequest } from './emulated-request.ts';
import type { AnswerStamp, CallContext } from './emulated-service.ts';
import { count, fields, flag, integer, listOf, number, text, type Check } from './emulated-shape.ts';
import { countTokens } from './emulated-tokens.ts';
import { FrameWriter } from './emulated-wire.ts';

// POST /v1/completions, the legacy endpoint, for the few models that do not reason.

interface TextRequest extends ChatRequest {
  /** What each choice begins with: its prompt, if it is to be repeated. */
  readonly echoes: readonly string[];
}

interface TextBody extends Record<string, unknown> {
  model: string;
  prompt: string | string[];
  n?: number | null;
  max_tokens?: number | null;
  echo?: boolean | null;
  stream?: boolean | null;
  stream_options?: { include_usage?: boolean | null } | null;
}

const checkTexts: Check = (value, path) => (Array.isArray(value) ? listOf(text)(value, path) : text(value, path));

const checkShape = fields(
  { model: text, prompt: checkTexts },
  {
    max_tokens: count, temperature: number, top_p: number, n: integer, stop: checkTexts, stream: flag,
    stream_options: fields({}, { include_usage: flag }), echo: flag, seed: integer, user: text, logprobs: integer, presence_penalty: number,
  },
);

export function completeText(context: CallContext): Work {
  const request = readTextRequest(context);
  const { model, script, promptTokens } = request;
  return { modelId: model.id, script, promptTokens: promptTokens.total, generate: () => generateText(context, request) };
}

/** @throws EmulatedRefusal the provider's first objection */
function readTextRequest({ json, service, admit }: CallContext): TextRequest {
  checkShape(json, '');
  const body = json as TextBody;
  const model = service.catalogue.resolve(body.model)?.model;
  if (model === undefined) throw unknownModel(body.model);
  if (model.reasoning !== 'never') throw notOnCompletions(model.id);
  checkParameters(body, false);
  const prompts = typeof body.prompt === 'string' ? [body.prompt] : body.prompt;
  if (prompts.length === 0) throw noPrompt();
  const total = prompts.reduce((sum, prompt) => sum + countTokens(prompt), 0);
  if (total > model.contextTokens) throw promptTooLong(model.contextTokens, total);
  const choicesPerPrompt = body.n ?? 1;
  const stream = body.stream === true;
  return {
    model, stream,
    reasons: false,
    segments: [],
    promptTokens: { total, image: 0 },
    includeUsage: stream && body.stream_options?.include_usage === true,
    choices: prompts.length * choicesPerPrompt,
    echoes: prompts.flatMap((prompt) => Array.from({ length: choicesPerPrompt }, () => (body.echo ? prompt : ''))),
    outputTokensMax: body.max_tokens ?? OUTPUT_TOKENS_DEFAULT,
    priority: false,
    script: admit(model.id, total),
  };
}

function generateText({ service, stamp }: CallContext, request: TextRequest): Generation {
  const answer = planAnswer(request, service.random);
  const costTicks = textCost(request, 0);
  const usage = () => (request.script.no_usage ? undefined : chatUsage(request, answer, 0, costTicks(answer)));
  const inStream = (request.includeUsage || service.switches.usageWithoutAsking) && !request.script.no_usage;
  return {
    answer, costTicks,
    plainBody: () => textBody(stamp, request, answer, usage()),
    frames: request.stream ? new TextFrames(stamp, request, answer, inStream ? usage : undefined, 'text_completion') : undefined,
  };
}

function textBody(stamp: AnswerStamp, { model, echoes }: TextRequest, answer: EmulatedAnswer, usage: unknown): string {
  return JSON.stringify({
    id: stamp.id,
    object: 'text_completion',
    created: stamp.createdUnix,
    model: model.id,
    choices: answer.choices.map(({ tokens, finishReason }, index) => ({ index, text: echoes[index] + tokens.join(''), finish_reason: finishReason })),
    ...(usage !== undefined && { usage }),
    system_fingerprint: systemFingerprint(model),
  });
}

/** The frames of a chat, with plain text in place of deltas. */
class TextFrames extends FrameWriter<TextRequest> {
  protected override textDelta(index: number, token: string, first: boolean): string {
    return `"text":${this.paddedJson(first ? this.request.echoes[index] + token : token)}`;
  }

  protected override noDelta(): string {
    return '"text":""';
  }
}
