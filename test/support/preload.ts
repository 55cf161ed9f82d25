// Jest runs CommonJS packages while it links the ES modules that import them. @nestjs/throttler is CommonJS and requires @nestjs/common and
// @nestjs/core, which are ES modules, and must therefore have been evaluated before.
import '@nestjs/common';
import '@nestjs/core';
