import { describe, expect, it } from '@jest/globals';
import type { DataClass } from '../auth/decision-point.ts';
import { readCallerOptions } from './caller-options.ts';

describe('readCallerOptions', () => {
  it('takes the tenant’s data class and no limits where the caller says nothing', () => {
    expect(readCallerOptions({}, 'internal')).toEqual({ maxCostTicks: undefined, dataClass: 'internal', deadlineMs: undefined });
  });

  it('reads money to the tick and time in milliseconds', () => {
    expect(readCallerOptions({ 'x-novix-max-cost-usd': '0.05', 'x-novix-deadline-ms': '86400000' }, 'internal')).toMatchObject({ maxCostTicks: 500_000_000n, deadlineMs: 86_400_000 });
    expect(readCallerOptions({ 'x-novix-max-cost-usd': '0' }, 'internal').maxCostTicks).toBe(0n);
  });

  const classes: DataClass[] = ['public', 'internal', 'confidential', 'restricted'];
  it.each(classes.flatMap((own) => classes.map((wanted): [DataClass, DataClass] => [own, wanted])))('the header can only raise the data class: %s of the tenant, %s of the caller', (own, wanted) => {
    expect(readCallerOptions({ 'x-novix-data-class': wanted }, own).dataClass).toBe(classes[Math.max(classes.indexOf(own), classes.indexOf(wanted))]);
  });

  it.each<[string, string | string[]]>([
    ['x-novix-deadline-ms', '0'], ['x-novix-deadline-ms', '-1'], ['x-novix-deadline-ms', '1.5'], ['x-novix-deadline-ms', '86400001'], ['x-novix-deadline-ms', '1e3'], ['x-novix-deadline-ms', ''], ['x-novix-deadline-ms', '5, 6'],
    ['x-novix-max-cost-usd', 'free'], ['x-novix-max-cost-usd', '-1'], ['x-novix-max-cost-usd', ''], ['x-novix-max-cost-usd', '1e9'], ['x-novix-max-cost-usd', '0.05, 5'], ['x-novix-max-cost-usd', ['0.05', '5']],
    ['x-novix-data-class', 'secret'], ['x-novix-data-class', 'Restricted'], ['x-novix-data-class', 'public, restricted'], ['x-novix-data-class', ''],
    ['x-novix-cost-mode', 'cheap'], ['x-novix-cache', 'yes'],
  ])('refuses %s: %p, naming the header', (name, value) => {
    expect(() => readCallerOptions({ [name]: value }, 'internal')).toThrow(expect.objectContaining({ code: 'invalid_request', param: name }));
  });

  it.each([['x-novix-cost-mode', 'off'], ['x-novix-cost-mode', 'advise'], ['x-novix-cost-mode', 'optimize'], ['x-novix-cache', 'no-cache'], ['x-novix-cache', 'no-store']])('takes %s: %s', (name, value) => {
    expect(() => readCallerOptions({ [name]: value }, 'internal')).not.toThrow();
  });
});
