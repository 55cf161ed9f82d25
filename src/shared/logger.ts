import type { LoggerService } from '@nestjs/common';
import { pino, type Logger } from 'pino';
import { RedactedValues } from './redacted-values.ts';

/** Header and field names whose values never reach a log line. */
const SECRET_PATHS = [
  'authorization', 'headers.authorization', 'req.headers.authorization', 'cookie', 'headers.cookie', 'headers["x-api-key"]',
  'apiKey', 'api_key', 'token', 'password', 'databaseUrl', '*.authorization', '*.apiKey', '*.api_key', '*.token', '*.password', '*.databaseUrl',
];

/** Secrets of this process: one set for all of it, as there is one standard output. */
const secretValues = new RedactedValues();

/**
 * From now on no line of the log holds this value, wherever it got in.
 *
 * @param kept it is not forgotten for newer ones; for the few of the settings
 */
export function hideFromLog(value: string, kept = false): void {
  secretValues.add(value, kept);
}

/** Structured logs, one JSON object a line on standard output; secrets are redacted by name, and those that are known by value. */
export function createLogger(level: string): Logger {
  return pino({
    level,
    base: { service: 'novix-gateway' },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: describeError },
    redact: { paths: SECRET_PATHS, censor: '[redacted]' },
    hooks: { streamWrite: (line) => secretValues.redact(line) },
    // Written in blocks: a log line must not cost a call a system call. What must never get lost is in the audit log.
  }, pino.destination({ dest: 1, sync: false, minLength: 4_096, periodicFlush: 200 }));
}

/** Of an error only what was written by programmers: other fields may hold a row of the database, or what a caller sent. */
function describeError(error: unknown): unknown {
  if (typeof error !== 'object' || error === null) return { message: String(error) };
  const { name, message, code, stack, cause } = error as { name?: string; message?: string; code?: unknown; stack?: string; cause?: unknown };
  return { name, message, code, stack, ...(cause === undefined ? {} : { cause: describeError(cause) }) };
}

/** Nest's own messages, in the same log. */
export function nestLogger(logger: Logger): LoggerService {
  const write = (level: 'info' | 'error' | 'warn' | 'debug' | 'trace') => (message: unknown, ...rest: unknown[]) => {
    const context = rest.findLast((value) => typeof value === 'string');
    const error = message instanceof Error ? message : rest.find((value) => value instanceof Error);
    logger[level]({ context, ...(error === undefined ? {} : { err: error }) }, message instanceof Error ? message.message : String(message));
  };
  return { log: write('debug'), error: write('error'), warn: write('warn'), debug: write('trace'), verbose: write('trace'), fatal: write('error') };
}

/** Injection token of the root {@link Logger}. */
export const LOGGER = Symbol('logger');
