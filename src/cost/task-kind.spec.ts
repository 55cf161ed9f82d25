import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { TASK_KINDS, taskKindOf } from './task-kind.ts';

describe('taskKindOf', () => {
  it.each<[string, string, string[], boolean]>([
    ['conversational', 'Say hello.', ['text'], false], ['real_time', 'Say hello.', ['text'], true], ['conversational', 'Say hello. '.repeat(50), ['text'], true], ['real_time', 'x'.repeat(400), ['text'], true], ['conversational', 'x'.repeat(401), ['text'], true],
    ['multimodal', 'What is this?', ['text', 'image_input'], true], ['multimodal', 'A fox.', ['image_output'], false], ['multimodal', 'SELECT a FROM b', ['image_input', 'structured_output'], false],
    ['data_analysis', 'Who is it?', ['text', 'structured_output'], true], ['data_analysis', 'SELECT name FROM users', ['text'], true], ['data_analysis', 'select a\nfrom b', ['text'], false], ['data_analysis', 'What is the correlation of the two?', ['text'], false],
    ['data_analysis', 'Sum this CSV', ['text'], false], ['data_analysis', 'Why?\n```js\nf()\n```', ['text'], false], ['data_analysis', 'a;b;c;d;e\n1;2;3;4;5\n', ['text'], false], ['data_analysis', 'a\tb\tc\td\te\n', ['text'], false],
    ['data_analysis', '| a | b | c | d | e |\n|---|---|---|---|---|\n', ['text'], false], ['data_analysis', '| a | b | c | d |\n| 1 | 2 | | 4 |', ['text'], false], ['data_analysis', 'Which?\n\n| a | b |\n| :--- | ---: |\n| 1 | 2 |', ['text'], false], ['data_analysis', 'a | b\r\n--- | ---\r\n1 | 2\r\n', ['text'], false],
    ['data_analysis', 'a,,b,,\n1,,2,,\n', ['text'], false], ['data_analysis', 'Sum up:\n1;;2;;5', ['text'], false], ['data_analysis', 'Sum up:\na,b,c,d,e', ['text'], false], ['data_analysis', 'a\t\tb\t\tc\n', ['text'], false],
    ['conversational', 'Buy apples, pears, plums, figs, nuts.', ['text'], false], ['conversational', 'Why?\n\t\t\t\treturn x\n', ['text'], false], ['conversational', 'Why?\nif (a || b || c)\n', ['text'], false], ['conversational', 'One.\n---\nTwo.\n,,,,,\n', ['text'], false],
    ['conversational', 'A tablecloth and a stable.', ['text'], false], ['conversational', 'First, second, and third.', ['text', 'function_calling'], false],
  ])('is %s for %p', (kind, text, capabilities, stream) => {
    expect(taskKindOf(text, capabilities, stream)).toBe(kind);
  });

  it('is one of the kinds for any text, and the same each time', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 1_000 }), fc.subarray(['text', 'image_input', 'image_output', 'structured_output', 'function_calling']), fc.boolean(), (text, capabilities, stream) => {
      const kind = taskKindOf(text, capabilities, stream);
      expect(TASK_KINDS).toContain(kind);
      expect(taskKindOf(text, capabilities, stream)).toBe(kind);
    }), { numRuns: 300 });
  });

  it.each<[string, string]>([
    ['commas', 'a,'.repeat(500_000)], ['SELECTs without an end', 'SELECT '.repeat(100_000)], ['bars', '|'.repeat(1_000_000)], ['blanks', ' '.repeat(1_000_000)], ['dashes', '-'.repeat(1_000_000)], ['bars and blanks', '| '.repeat(500_000)], ['rules', '---|\n'.repeat(200_000)], ['lines', '\n'.repeat(1_000_000)], ['cells without a line end', `${'abcdefgh|'.repeat(100_000)}`], ['pipes and letters', 'x|y'.repeat(300_000)],
  ])('takes no time for a megabyte of %s', (_, text) => {
    const before = process.cpuUsage();
    for (let time = 0; time < 3; time += 1) expect(TASK_KINDS).toContain(taskKindOf(text, ['text'], false));
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 3).toBeLessThan(50_000); // microseconds
  });
});
