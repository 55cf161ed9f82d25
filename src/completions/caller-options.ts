import type { IncomingHttpHeaders } from 'node:http';
import { DATA_CLASSES, type DataClass } from '../auth/decision-point.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { parseUsd } from '../shared/usd-ticks.ts';

/** What a caller says of a call in `x-novix-…` headers. */
export interface CallerOptions {
  maxCostTicks: bigint | undefined;
  /** Undefined: as the tenant has it. */
  costMode: 'off' | 'advise' | 'optimize' | undefined;
  dataClass: DataClass;
  deadlineMs: number | undefined;
}

const DEADLINE_MS_MAX = 86_400_000;

/**
 * @param tenantClass the tenant's own data class: the header can only raise it
 * @throws {GatewayError} `invalid_request`, naming the header
 */
export function readCallerOptions(headers: IncomingHttpHeaders, tenantClass: DataClass): CallerOptions {
  const costMode = oneOf(headers, 'x-novix-cost-mode', ['off', 'advise', 'optimize'] as const);
  oneOf(headers, 'x-novix-cache', ['no-cache', 'no-store']);
  const wanted = oneOf(headers, 'x-novix-data-class', DATA_CLASSES) ?? tenantClass;
  const deadline = single(headers, 'x-novix-deadline-ms');
  const maxCost = single(headers, 'x-novix-max-cost-usd');
  if (deadline !== undefined && !(/^\d{1,8}$/.test(deadline) && Number(deadline) >= 1 && Number(deadline) <= DEADLINE_MS_MAX)) {
    throw invalidHeader('x-novix-deadline-ms', `takes milliseconds from 1 to ${DEADLINE_MS_MAX}`);
  }
  const maxCostTicks = maxCost === undefined ? undefined : parseUsd(maxCost);
  if (maxCost !== undefined && maxCostTicks === undefined) throw invalidHeader('x-novix-max-cost-usd', 'takes a decimal number of USD such as 0.05');
  return {
    maxCostTicks, costMode,
    dataClass: DATA_CLASSES.indexOf(wanted) > DATA_CLASSES.indexOf(tenantClass) ? wanted : tenantClass,
    deadlineMs: deadline === undefined ? undefined : Number(deadline),
  };
}

function oneOf<T extends string>(headers: IncomingHttpHeaders, name: string, values: readonly T[]): T | undefined {
  const value = single(headers, name);
  if (value === undefined) return undefined;
  const known = values.find((one) => one === value);
  if (known === undefined) throw invalidHeader(name, `takes one of ${values.join(', ')}`);
  return known;
}

function single(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value.join(',') : value;
}

function invalidHeader(name: string, takes: string): GatewayError {
  return new GatewayError('invalid_request', { publicMessage: `The header ${name} ${takes}.`, param: name });
}
