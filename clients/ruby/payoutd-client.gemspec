Gem::Specification.new do |gem|
  gem.name = "payoutd-client"
  gem.version = "0.1.0"
  gem.summary = "Client of payoutd, a gateway for Cregis payouts that pays each id at most once"
  gem.authors = ["payoutd"]
  gem.licenses = ["MIT", "Apache-2.0"]
  gem.required_ruby_version = ">= 3.0"
  gem.files = Dir["lib/**/*.rb", base: __dir__]
  gem.add_dependency "googleapis-common-protos-types", "~> 1.4"
  gem.add_dependency "grpc", "~> 1.51"
end
