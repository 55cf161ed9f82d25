import { undeserializable } from './emulated-errors.ts';
import { SERVER_TOOL_FEES_TICKS, type ServerToolCalls } from './emulated-server-tools.ts';
import { anything, count, fields, flag, isObject, number, object, oneOf, text, type Check } from './emulated-shape.ts';

/**
 * What a test asks of one call, in the request field `x_emulator`. The real service ignores the field, and the gateway passes it on.
 * All are optional; a name or type that is not known here is refused with 422, since a misspelled script would test nothing.
 */
export interface EmulatorScript {
  /** Length of each choice, still within the request's own limit. Ignored where the text is fixed (`content`, JSON, tool calls). */
  output_tokens?: number;
  /** Per choice; also for models that do not reason. */
  reasoning_tokens?: number;
  first_token_ms?: number;
  token_interval_ms?: number;
  /** Refuse with this status after `first_token_ms`; 52x and 530 answer HTML. */
  status?: number;
  /** The refusal's JSON body. */
  body?: unknown;
  /** The refusal's body is the network's HTML page; status 520 unless given. */
  html?: boolean;
  /** Header `retry-after` of the refusal, in seconds. */
  retry_after?: number;
  /** An overload answered as a success: 200, `application/json`, `{code, error}`. */
  ok_with_error?: boolean;
  /** An error frame takes the place of the next content frame, and the stream ends there without [DONE]. */
  error_frame_after?: number;
  /** 'failed', of /v1/responses alone: the event `response.failed`. */
  error_shape?: 'flat' | 'nested' | 'failed';
  /** The connection breaks after so many content frames; a plain answer breaks in the middle of its body. */
  cut_after?: number;
  /** …with half of the next frame sent. Alone it means `cut_after: 1`. */
  cut_mid_frame?: boolean;
  /** The stream ends cleanly, only without [DONE]. */
  no_done?: boolean;
  no_usage?: boolean;
  /** Stands in for the usage object, unchecked. Its price is billed if it is a whole number, zero or more. */
  usage?: Record<string, unknown>;
  /** Stands in for the computed price, and is billed if it is a whole number, zero or more. */
  cost_usd_ticks?: number;
  /** Silence after so many content frames, until the caller goes; a plain answer stops in the middle of its body. */
  stall_after?: number;
  stall_before_headers?: boolean;
  /** Each content frame is filled up with spaces to so many characters. The filling is not counted as tokens. */
  frame_bytes?: number;
  /** The exact text of each choice, still within the request's own limit. */
  content?: string;
  /** Frames end in CRLF CRLF. */
  crlf?: boolean;
  /** Before anything else, headers included; then the call's clock begins. */
  delay_ms?: number;
  /** A TCP reset in place of an answer. */
  reset_before_headers?: boolean;
  /** The connection breaks after so many bytes of the body, counted before compression. */
  cut_after_bytes?: number;
  /** The body is written in pieces of so many bytes, each an HTTP chunk of its own; boundaries fall inside of characters and names. */
  chunk_bytes?: number;
  /** `content-encoding: gzip`, if the caller accepts it; 'force': even if not. */
  gzip?: boolean | 'force';
  /** The last frame has no line end. */
  no_final_newline?: boolean;
  /** An `event: ping` after every so many content frames, which is in no count. */
  ping_every?: number;
  /** The pings have `data:` too; some clients fail with it, others without. */
  ping_data?: boolean;
  /** After the answer, another one that nobody has asked for follows on the connection. */
  unsolicited?: boolean;
  /** Tools that ran on the server: their fees are added, and usage tells their numbers. */
  server_tool_calls?: ServerToolCalls;
}

/** How a stream is broken off: when, counted in content frames (but always before its finish frame), and in which way. */
export interface Interruption {
  readonly kind: 'error' | 'cut' | 'stall';
  readonly afterFrames: number;
}

const SERVER_TOOL_CHECKS = Object.fromEntries(Object.keys(SERVER_TOOL_FEES_TICKS).map((name) => [name, count]));

const CHECKS: Readonly<Record<keyof EmulatorScript, Check>> = {
  output_tokens: count, reasoning_tokens: count, first_token_ms: count, token_interval_ms: number,
  status: count, body: anything, html: flag, retry_after: count, ok_with_error: flag,
  error_frame_after: count, error_shape: oneOf('flat', 'nested', 'failed'), cut_after: count, cut_mid_frame: flag, no_done: flag,
  no_usage: flag, usage: object, cost_usd_ticks: number,
  stall_after: count, stall_before_headers: flag, frame_bytes: count, content: text, crlf: flag,
  delay_ms: count, reset_before_headers: flag, cut_after_bytes: count, chunk_bytes: count,
  gzip: (value, path) => (value === 'force' ? undefined : flag(value, path)),
  no_final_newline: flag, ping_every: count, ping_data: flag, unsolicited: flag, server_tool_calls: fields({}, SERVER_TOOL_CHECKS),
};

const checkScript = fields({}, CHECKS);

/** @throws EmulatedRefusal 422, naming the place after `path` */
export function readScript(value: unknown, path = 'x_emulator'): EmulatorScript {
  checkScript(value, path);
  const unknown = isObject(value) ? Object.keys(value).find((name) => !Object.hasOwn(CHECKS, name)) : undefined;
  if (unknown !== undefined) throw undeserializable(`${path}: unknown field \`${unknown}\``);
  return value as EmulatorScript;
}

export function frameEndOf({ crlf }: EmulatorScript): string {
  return crlf ? '\r\n\r\n' : '\n\n';
}

export function interruptionOf(script: EmulatorScript): Interruption | undefined {
  if (script.error_frame_after !== undefined) return { kind: 'error', afterFrames: script.error_frame_after };
  if (script.cut_after !== undefined || script.cut_mid_frame) return { kind: 'cut', afterFrames: script.cut_after ?? 1 };
  if (script.stall_after !== undefined) return { kind: 'stall', afterFrames: script.stall_after };
  return undefined;
}
